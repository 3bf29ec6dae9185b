/** Which sequences a distillation trains on, and which decide what it keeps. */
import { InputError, UsageError } from "../../base/errors.ts";
import { type CalibrationSet, chooseLength, setOfWindows } from "../../calibration/calibration-set.ts";
import { type CalibrationMix, mixSets } from "../../calibration/mix.ts";
import { chooseWindows, fillWindows } from "../../calibration/windows.ts";
import type { DistillShape } from "../../distill/distill-plan.ts";
import type { Recipe } from "../../distill/recipe.ts";
import { calibrationSeed } from "../../eval/generated/seeds.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { formatCount } from "../../report/quantities.ts";
import { AnswerReader, generatedOf, type MixFlags, namedSources } from "../arguments/calibration-mix.ts";
import { openCalibrationSet } from "../arguments/inputs.ts";
import type { Terminal } from "../console/terminal.ts";

/** Batches of held-out text, unless --holdout says otherwise: more decide no better which step is best. */
const usualHeldOutBatches = 4;

type Steps = Pick<Recipe, "steps" | "batch" | "seed">;

/**
 * All sources of `-c` as sequences of one length. Of several sources each gives its weight's share of the sequences: as many
 * as the smallest file allows, and no more than the steps can use. Generated tasks are in it with their answers, one whole
 * task a sequence.
 */
export async function openTrainingText(
  model: ModelDescription,
  flags: MixFlags,
  recipe: Steps,
  holdout: string | undefined,
  terminal: Terminal,
): Promise<CalibrationMix> {
  const given = await namedSources(flags.calibration);
  const [only] = given;
  if (given.length < 2 && (only === undefined || generatedOf(only.name) === undefined)) {
    const set = await openCalibrationSet(model, only?.name, flags, terminal);
    return mixSets([{ name: set.source, weight: 1, answers: false, set }]);
  }
  const weights = given.reduce((sum, { weight }) => sum + weight, 0);
  const files = new Map<string, CalibrationSet>();
  const { sequences: most, ...reading } = flags;
  let total = Math.min(most ?? Number.POSITIVE_INFINITY, usableSequences(recipe, holdout));
  for (const { name, weight } of given) {
    if (generatedOf(name) !== undefined) continue;
    const set = await openCalibrationSet(model, name, reading, terminal);
    files.set(name, set);
    total = Math.min(total, Math.floor((set.windows.length * weights) / weight));
  }
  const length = chooseLength(model.config, flags);
  const reader = new AnswerReader(model);
  const parts = [];
  for (const { name, weight } of given) {
    const count = Math.max(1, Math.round((total * weight) / weights));
    const file = files.get(name);
    const generated = generatedOf(name);
    let windows: Int32Array[];
    if (generated === undefined) windows = chooseWindows(file?.windows ?? [], count, flags.seed);
    else {
      const asked = { ...flags, sequences: count };
      const found = await reader.generate(name, generated, calibrationSeed(flags.seed), asked, terminal.signal);
      for (const warning of found.warnings) terminal.warn(warning);
      windows = fillWindows(found.windows, length);
    }
    terminal.note(`${formatCount(windows.length)} sequences of ${formatCount(length)} tokens are from ${name}`);
    parts.push({ name: file?.source ?? name, weight, answers: false, set: setOfWindows(name, windows, length) });
  }
  return mixSets(parts);
}

/** Sequences beyond these are not used: those of all steps, and those that are held out. */
function usableSequences({ steps, batch }: Steps, holdout: string | undefined): number {
  if (holdout === undefined) return (steps + usualHeldOutBatches) * batch;
  return Math.ceil((steps * batch) / (1 - parseShare(holdout))) + batch;
}

/**
 * The last sequences of each source are held out: neighbours of the same document stay on one side. Of the others no more are
 * kept than the steps can use, since all of them go through the whole model.
 */
export function splitText(set: CalibrationMix, { steps, batch, seed }: Steps, holdout: string | undefined) {
  const all = set.windows.length;
  const count = heldOutCount(all, batch, holdout);
  if (all - count < batch) {
    throw new InputError(
      `The text has ${all} sequences of ${set.sequenceLength} tokens: too few for a batch of ${batch} and ${count} held out`,
      { hint: "give more text, or a smaller --batch" },
    );
  }
  const training: Int32Array[] = [];
  const heldOut: Int32Array[] = [];
  let seen = 0;
  for (const { sequences } of set.sources) {
    seen += sequences.length;
    // Shares add up to the whole number.
    const first = sequences.length - (Math.round((count * seen) / all) - heldOut.length);
    for (const [place, index] of sequences.entries()) {
      (place < first ? training : heldOut).push(set.windows[index] as Int32Array);
    }
  }
  const chosen = chooseWindows(training, steps * batch, seed);
  const shape: DistillShape = { sequences: chosen.length, heldOut: heldOut.length, length: set.sequenceLength };
  return { training: chosen, heldOut, shape };
}

/** Whole batches, one at least. */
export function heldOutCount(sequences: number, batch: number, holdout: string | undefined): number {
  const share = parseShare(holdout ?? "1/16");
  if (share === 0) return 0;
  const batches = Math.max(1, Math.round((sequences * share) / batch));
  return batch * (holdout === undefined ? Math.min(usualHeldOutBatches, batches) : batches);
}

function parseShare(text: string): number {
  const [above = "", below = "1", more] = text.split("/");
  const value = Number(above) / Number(below);
  if (more !== undefined || above.trim() === "" || !(value >= 0 && value < 1)) {
    throw new UsageError(`--holdout is ${text}: it must be a share such as 1/16 or 0.1, or 0`);
  }
  return value;
}
