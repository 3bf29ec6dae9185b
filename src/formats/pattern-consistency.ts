/** What a pattern file says twice must agree: letters and numbers of layers, patterns and steps, losses and their changes. */
import { InputError } from "../base/errors.ts";
import { countFull, parsePattern } from "../pattern/pattern.ts";
import type { PatternFile } from "./pattern-schema.ts";

type Step = PatternFile["trajectory"][number];
type Found = NonNullable<PatternFile["patterns"]>[number];

/**
 * Each pattern has the size that it names, steps change the layers that they name, and the last pattern is the file's.
 * @throws InputError naming the field
 */
export function requireConsistency({ model, trajectory, patterns = [], ...file }: PatternFile, what: string): void {
  const fail = (message: string): never => {
    throw new InputError(`${what}: ${message}`);
  };
  const requireLength = (at: string, { length }: string): void => {
    if (length !== model.layers) fail(`${at} has ${length} letters, "model.layers" is ${model.layers}`);
  };
  const requireGreedyStep = (at: string, { index_topk_pattern: pattern, ...step }: Step, before?: Step): void => {
    const flipped = step.flipped_layer;
    requireLength(at, pattern);
    if (pattern[flipped] !== "S") fail(`${at} says it flipped layer ${flipped}, which is F in it`);
    const unflipped = `${pattern.slice(0, flipped)}F${pattern.slice(flipped + 1)}`;
    if (before !== undefined && unflipped !== before.index_topk_pattern) {
      fail(`${at} is not the step before it with one more Shared layer`);
    }
    if (!step.candidates.some(({ layer }) => layer === flipped)) {
      fail(`${at} flipped layer ${flipped}, which is not among its candidates`);
    }
  };
  const requireFound = (at: string, { index_topk_pattern: pattern, ...found }: Found): void => {
    requireLength(at, pattern);
    const full = fullIn(pattern);
    if (full !== found.full_layers) fail(`${at} has ${full} F layers and says ${found.full_layers}`);
    const said = found.stability?.full.length ?? model.layers;
    if (said !== model.layers) {
      fail(`${at} says of ${said} layers how often they are Full, "model.layers" is ${model.layers}`);
    }
    let before: string | undefined;
    for (const [index, { index_topk_pattern: after, flipped_layers: flipped }] of (found.steps ?? []).entries()) {
      requireLength(`${at} step ${index}`, after);
      const changed = [...after].flatMap((letter, layer) => (letter === before?.[layer] ? [] : [layer])).join(", ");
      if (before !== undefined && changed !== flipped.join(", ")) {
        const named = flipped.join(", ");
        fail(`${at} step ${index} says it flipped layers ${named}; those that differ are ${changed || "none"}`);
      }
      before = after;
    }
    if (before !== undefined && before !== pattern) fail(`${at} is not the last pattern of its "steps"`);
  };
  if (model.weight_hash === undefined && file.server === undefined) {
    fail(`"model.weight_hash" is missing, and no "server" had the weights`);
  }
  const chosen = file.index_topk_pattern;
  requireLength('"index_topk_pattern"', chosen);
  for (const [i, step] of trajectory.entries()) requireGreedyStep(`"trajectory[${i}]"`, step, trajectory[i - 1]);
  for (const [i, found] of patterns.entries()) requireFound(`"patterns[${i}]"`, found);
  if (patterns.length > 0 && patterns.at(-1)?.index_topk_pattern !== chosen) {
    fail(`"index_topk_pattern" is not the last of "patterns"`);
  }
  if (trajectory.length > 0 && trajectory.at(-1)?.index_topk_pattern !== chosen) {
    fail(`"index_topk_pattern" has ${fullIn(chosen)} F layers and is not the last pattern of "trajectory"`);
  }
}

function fullIn(pattern: string): number {
  return countFull(parsePattern(pattern));
}

/** Losses of one file that are rounded differently: sums in another order, decimal text. */
const LOSS_TOLERANCE = 1e-9;

/**
 * A file that says two things of one loss has been edited or damaged. Losses on part of the sequences are left alone, and
 * under the objective kl the steps' numbers are of another kind.
 * @throws InputError naming the field
 */
export function requireConsistentLosses({ trajectory, patterns = [], ...file }: PatternFile, what: string): void {
  const require = (where: string, stated: number, found: number, of: string): void => {
    if (Math.abs(stated - found) <= LOSS_TOLERANCE * (1 + Math.abs(found))) return;
    throw new InputError(`${what}: ${where} is ${stated}, ${of} make it ${found}`);
  };
  for (const field of ["baseline_loss", "loss"] as const) {
    if (file[field] < 0) throw new InputError(`${what}: "${field}" is ${file[field]}; a loss in nats is not negative`);
  }
  const whole = [...trajectory.entries()].filter(([, step]) => step.sequences === undefined);
  for (const [index, { flipped_layer: flipped, candidates, loss }] of whole) {
    const chosen = candidates.find(({ layer }) => layer === flipped);
    if (chosen !== undefined && chosen.sequences === undefined) {
      require(`"trajectory[${index}].loss"`, loss, chosen.loss, `its candidate ${flipped}`);
    }
  }
  if (file.search.objective === "kl") return;
  const changed = (where: string, { loss, change }: { loss: number; change?: number | undefined }): void => {
    if (change !== undefined) require(`"${where}.change"`, change, loss - file.baseline_loss, "loss and baseline_loss");
  };
  for (const [index, step] of whole) changed(`trajectory[${index}]`, step);
  for (const [index, found] of patterns.entries()) changed(`patterns[${index}]`, found);
  const last = patterns.at(-1);
  if (last !== undefined) require('"loss"', file.loss, last.loss, 'the last of "patterns"');
}
