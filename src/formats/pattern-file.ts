/**
 * The pattern file: what `search` writes and everything else reads. One JSON object, snake_case like the configs that
 * it is pasted into; `docs/pattern-format.md` explains it and `docs/pattern.schema.json` is generated from here.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { writeFileAtomically } from "../base/files.ts";
import { CALIBRATION_RUNS, RUN_TOKENS } from "../base/ngram-sketch.ts";
import { fullLayers, type Pattern, parsePattern } from "../pattern/pattern.ts";
import { layerLoads } from "./journal.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
export const PATTERN_SCHEMA_VERSION = 1;

const hash = z.string().regex(/^[0-9a-f]{64}$/, "expected a SHA-256 as 64 lower-case hex digits");
/** The letters of a pattern, in every file that holds one. */
export const letters = z.string().regex(/^F[FS]*$/, "expected letters F and S, the first one F");
export const count = z.int().min(0);
export const nats = z.number().describe("nats per token");

export const modelIdentity = z
  .object({
    name: z.string(),
    architecture: z.string().describe("model_type of config.json"),
    layers: z.int().min(1).describe("backbone layers; prediction layers (MTP) are not counted"),
    index_topk: z.int().min(1),
    config_hash: hash.describe("SHA-256 over the parts of the config that decide the numbers"),
    weight_hash: hash.optional().describe("SHA-256 over the weights; absent where a server had them"),
  })
  .describe("The model that the pattern was searched on; a reader refuses it for another one");

export const calibrationIdentity = z.object({
  source: z.string(),
  hash: hash.describe("SHA-256 over the token ids that were used"),
  sequences: z.int().min(1).describe("that losses are means over"),
  tokens: z.int().min(1),
  held_out_sequences: z.int().min(1).optional().describe("of the same set, kept out of a search"),
  sources: z
    .array(
      z.object({
        source: z.string(),
        weight: z
          .number()
          .min(0)
          .max(1)
          .describe("share of the total: losses are weighted means of the sources' means"),
        scored: z.enum(["all", "answers"]).describe("which tokens count: all, or those of answers after their prompts"),
        sequences: z.int().min(1),
        scored_tokens: z.int().min(1),
        seed: z.int().min(0).optional().describe("of generated sequences; eval has none of these seeds"),
      }),
    )
    .min(1)
    .optional()
    .describe("where it is more than one set of text"),
});

/** @param mostRuns that it keeps */
export const sketchSchema = (mostRuns: number) =>
  z
    .object({
      n: z.literal(RUN_TOKENS).describe("tokens of a run"),
      limit: z
        .int()
        .min(0)
        .max(2 ** 48 - 1)
        .describe("runs with hashes from 0 up to this one were kept"),
      hashes: z
        .string()
        .max(8 * mostRuns)
        .regex(/^(?:[A-Za-z0-9+/]{8})*$/)
        .describe("ascending, six bytes each, big-endian, in base64; runs that several windows have are left out"),
    })
    .describe("which runs of tokens the set has: eval refuses items that have them too");

const servedBy = z
  .object({
    engine: z.enum(["vllm", "sglang"]).describe("whose routes the server has"),
    title: z.string().describe("the engine and its version"),
    served_model: z.string(),
    servers: z.int().min(1).describe("replicas that shared the sequences"),
    tensor_parallel: z.int().min(1),
    pipeline_parallel: z.int().min(1),
    dtype: z.string().optional(),
    kv_cache_dtype: z.string().optional(),
    head_dtype: z.string().optional().describe("of the logits; model is the model's own"),
    scored_from: z.int().min(1).describe("position of the first token in each sequence that losses are over"),
    noise: z
      .number()
      .min(0)
      .describe("standard error of a mean loss because a repeated measurement differs, with every indexer"),
  })
  .describe("The engine that measured the losses, where it was not this tool; such numbers repeat up to noise");

export const toolIdentity = z.object({
  version: z.string(),
  runtime: z.string(),
  device: z.string(),
  /** Absent in files from before there was a choice: float32. */
  dtype: z.string().optional(),
  command: z.string().optional().describe("command line of the run that wrote the file"),
});

/** Null where it is not known: with a single sequence. */
const error = z.number().min(0).nullable();
const changeError = error.describe("standard error of that difference, sequence by sequence");

const predictedSpeedup = z.number().describe("against every layer Full, by the costs of a latency file");

const candidate = z.object({
  layer: z.int().min(1),
  loss: nats,
  change_error: changeError.optional(),
  sequences: z.int().min(1).optional().describe("that it was measured on; all where absent"),
  dropped: z.boolean().optional().describe("shown not to be the best before all sequences were measured"),
});

const lead = z.object({
  over: z.int().min(1).describe("layer of the next best candidate"),
  nats: z.number().describe("how far the step's choice is ahead of it"),
  standard_error: error.describe("of the lead, sequence by sequence"),
  sequences: z.int().min(1),
  within_noise: z
    .boolean()
    .nullable()
    .describe("the lead is less than twice its standard error; null where that is not known"),
});

const repeats = {
  noise: error.describe("of one measurement of the step's base or of the result, because it repeats differently"),
  rounds: count.describe("in which candidates were measured again"),
};

const repetition = z
  .object({
    ...repeats,
    undecided: z
      .array(z.int().min(1))
      .describe("layers that were not told from the step's choice after them; the lowest was taken"),
  })
  .describe("of a search on a server, whose measurements repeat up to noise");

const measured = {
  index_topk_pattern: letters.describe("the pattern after this step"),
  loss: nats,
  standard_error: error.describe("of the mean over sequences"),
  change: z.number().optional().describe("loss less baseline_loss"),
  change_error: changeError.optional(),
  sequences: z.int().min(1).optional().describe("that it was measured on; all where absent"),
  lead: lead.optional(),
  repetition: repetition.optional(),
};

const step = z.object({
  ...measured,
  flipped_layer: z.int().min(1).describe("the layer that this step made Shared"),
  candidates: z
    .array(candidate)
    .min(1)
    .describe("every layer that was tried in this step, with the loss it would have given"),
});

const otherStep = z.object({
  ...measured,
  flipped_layers: z
    .array(z.int().min(1))
    .min(1)
    .describe("layers that this step changed, ascending; what they became is their letter in the pattern"),
  candidates: z.int().min(1).describe("how many patterns were tried from the same one"),
});

const heldOut = z
  .object({
    loss: nats,
    change: z.number(),
    change_error: changeError,
    kl: nats.optional(),
    kl_error: error.optional(),
  })
  .describe("on the sequences that the search did not see");

const secondLook = z
  .object({
    first_pattern: letters.describe("greedy's"),
    first_loss: nats,
    gain: z.number().describe("first_loss less loss; 0 if nothing better than greedy's pattern was found"),
    gain_error: error,
    tried: count.optional().describe("patterns measured beyond greedy's, of all sizes together"),
    held_out_gain: z.number().optional().describe("the same on the held-out sequences"),
    held_out_gain_error: error.optional(),
  })
  .describe("of refine (look-again in earlier versions): what it found beyond greedy");

const stability = z
  .object({
    resamples: z.int().min(1).describe("of the sequences, with replacement, each of as many as the search judged by"),
    agreement: z.number().min(0).max(1).describe("share of the resamples whose search chooses this pattern"),
    full: z
      .array(z.number().min(0).max(1))
      .min(1)
      .describe("for each layer, the share of the resamples in which it is Full"),
    sequences_needed: z
      .int()
      .min(1)
      .optional()
      .describe("with so many 9 of 10 resamples choose this pattern; absent where sequences_tried were too few"),
    sequences_tried: z.int().min(1).describe("the most that resamples had"),
  })
  .describe("whether other text of the same kind would lead to the same pattern, by the losses that were measured");

const found = z.object({
  full_layers: z.int().min(1),
  index_topk_pattern: letters,
  loss: nats,
  standard_error: error,
  change: z.number().describe("loss less baseline_loss"),
  change_error: changeError,
  kl: nats.optional().describe("KL divergence from the model's own pattern"),
  kl_error: error.optional(),
  predicted_speedup: predictedSpeedup.optional(),
  found_by: z.string().describe("the strategy, or the part of it, that found the pattern"),
  steps: z.array(otherStep).optional().describe("how it came about, where that is no part of trajectory"),
  sources: z
    .array(z.object({ source: z.string(), loss: nats, change: z.number(), change_error: changeError }))
    .optional()
    .describe("of each source of the calibration, where there are several"),
  held_out: heldOut.optional(),
  stability: stability.optional(),
  second_look: secondLook.optional(),
  repetition: z
    .object({
      ...repeats,
      undecided: z.array(letters).describe("other patterns of this size that were not told from this one after them"),
    })
    .optional()
    .describe("of a search on a server, whose measurements repeat up to noise"),
});

const frontierPoint = z.object({
  full_layers: z.int().min(1),
  index_topk_pattern: letters,
  loss: nats,
  change: z.number(),
  change_error: changeError,
  sequences: z.int().min(1).optional().describe("that it was measured on; all where absent"),
  predicted_speedup: predictedSpeedup.optional(),
});

const rows = z
  .object({ run: count, prefix: z.int(), invariant: count, kept: count })
  .describe(
    "token rows through layer bodies: those that ran, and those that states below the first difference, rows below index_topk and kept winners spared",
  );

export const patternFileSchema = z
  .object({
    schema_version: z.literal(PATTERN_SCHEMA_VERSION),
    index_topk_pattern: letters.describe(
      "one letter a layer: F runs its indexer, S reuses the indices of the F before it",
    ),
    model: modelIdentity,
    calibration: calibrationIdentity.extend({ ngrams: sketchSchema(2 * CALIBRATION_RUNS).optional() }),
    baseline_loss: nats.describe("of the model's own pattern, nats per token"),
    loss: nats.describe("of index_topk_pattern, nats per token"),
    trajectory: z
      .array(step)
      .describe("the committed steps of greedy and blockwise, first to last; empty for other searches"),
    patterns: z
      .array(found)
      .min(1)
      .optional()
      .describe("the best pattern of each wanted retention, the most Full layers first"),
    predicted: z
      .object({ phase: z.enum(["prefill", "decode"]), context: z.int().min(1) })
      .optional()
      .describe("what predicted_speedup is of"),
    knee: z
      .int()
      .min(1)
      .optional()
      .describe("Full layers where the loss begins to rise faster than on average over frontier"),
    search: z.object({
      strategy: z.string(),
      objective: z
        .enum(["nll", "kl", "answer"])
        .optional()
        .describe("what was minimised; nll where absent. answer: the loss of the tokens of answers"),
      settings: z
        .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
        .optional()
        .describe("of the strategy, and constraints"),
      stability_unknown: z
        .enum(["race", "bound", "strategy", "few sequences"])
        .optional()
        .describe(
          "why patterns have no stability: a race or a bound dropped candidates before all sequences were measured, the strategy's steps cannot be taken again on resamples, or there were fewer than 4 sequences",
        ),
      optimum: z
        .literal(true)
        .optional()
        .describe("every pattern of the wanted sizes was measured: none loses less on these sequences"),
      evaluations: count.describe("patterns evaluated"),
      sequence_evaluations: count.optional().describe("the same in sequences"),
      frontier: z.array(frontierPoint).optional().describe("the best pattern of every size that was committed"),
      layer_executions: z
        .object({
          body: count,
          indexer: count,
          naive_body: count,
          naive_indexer: count,
          rows: rows.optional(),
          loads: layerLoads
            .optional()
            .describe(
              "layers that were loaded in turn, where memory had no room for the model: passes over the layers, layers loaded, bytes of weights in the files, seconds",
            ),
        })
        .describe("layers run, one for each sequence; naive is what full forward passes would have run"),
      seconds: z.number().min(0),
    }),
    server: servedBy.optional(),
    tool: toolIdentity,
  })
  .meta({ title: "IndexCache pattern file" });

/** Stands in journals for the hash of weights that only a server has read. */
export const WEIGHTS_NOT_READ = "not read";

export type PatternFile = z.infer<typeof patternFileSchema>;
export type ModelIdentityRecord = PatternFile["model"];

/**
 * Reads a pattern file of a search and checks that it agrees with itself.
 * @throws InputError naming the file and the field
 */
export async function readPatternFile(path: string): Promise<CheckedPatternFile> {
  return parsePatternFile(await readPatternText(path), path);
}

/** A pattern file that agrees with itself. */
export type CheckedPatternFile = PatternFile & { index_topk_pattern: Pattern };

/** As `readPatternFile`, for a text that was read from `path`. */
export function parsePatternFile(text: string, path: string): CheckedPatternFile {
  const what = `Pattern file "${path}"`;
  const file = parseJson(text, patternFileSchema, what, "docs/pattern-format.md describes the file");
  requireConsistency(file, what);
  requireConsistentLosses(file, what);
  return { ...file, index_topk_pattern: parsePattern(file.index_topk_pattern, what) };
}

/** The text of a file that should hold a pattern. */
export async function readPatternText(path: string): Promise<string> {
  return readText(path, `pattern file "${path}"`, {
    hint: "a pattern is a file, letters F and S, full, uniform:N or freq:N",
  });
}

/** Writes a pattern file, all or nothing. What would not be readable again is a defect and throws before writing. */
export async function writePatternFile(path: string, file: PatternFile): Promise<void> {
  await writeFileAtomically(path, formatPatternFile(file));
}

/** The text of a pattern file: the search's trajectory one candidate list a line, so that a diff stays readable. */
export function formatPatternFile(file: PatternFile): string {
  requireConsistency(patternFileSchema.parse(file), "Pattern file");
  const text = JSON.stringify(file, null, 2);
  const flat = (whole: string): string => whole.replace(/\s+/g, " ");
  return `${text.replace(/\{\s+"layer": \d+,[^{}]*\}|(?<="full": )\[[^[\]]*\]/g, flat)}\n`;
}

/**
 * Refuses a pattern that was searched on another model: the same letters on other weights mean nothing.
 * The name is not compared, a folder may be renamed.
 */
export function requireSameModel(file: PatternFile, model: ModelIdentityRecord, path: string): void {
  const compared = ["architecture", "layers", "index_topk", "config_hash", "weight_hash"] as const;
  const differing = compared.filter(
    (field) => file.model[field] !== model[field] && file.model[field] !== undefined && model[field] !== undefined,
  );
  if (differing.length === 0) return;
  const details = differing.map((field) => `${field} ${short(file.model[field])} against ${short(model[field])}`);
  throw new InputError(
    `Pattern file "${path}" is of model "${file.model.name}", not of "${model.name}": ${details.join(", ")}`,
    { hint: `to try its letters on this model all the same, give them as --pattern ${file.index_topk_pattern}` },
  );
}

function requireConsistency(file: PatternFile, what: string): void {
  const { layers } = file.model;
  const fail = (message: string): never => {
    throw new InputError(`${what}: ${message}`);
  };
  if (file.model.weight_hash === undefined && file.server === undefined) {
    fail(`"model.weight_hash" is missing, and no "server" had the weights`);
  }
  if (file.index_topk_pattern.length !== layers) {
    fail(`"index_topk_pattern" has ${file.index_topk_pattern.length} letters, "model.layers" is ${layers}`);
  }
  let previous: PatternFile["trajectory"][number] | undefined;
  for (const [index, current] of file.trajectory.entries()) {
    const at = `"trajectory[${index}]"`;
    const pattern = current.index_topk_pattern;
    if (pattern.length !== layers) fail(`${at} has ${pattern.length} letters, "model.layers" is ${layers}`);
    if (pattern[current.flipped_layer] !== "S")
      fail(`${at} says it flipped layer ${current.flipped_layer}, which is F in it`);
    if (previous !== undefined) {
      const before = `${pattern.slice(0, current.flipped_layer)}F${pattern.slice(current.flipped_layer + 1)}`;
      if (before !== previous.index_topk_pattern) fail(`${at} is not the step before it with one more Shared layer`);
    }
    if (!current.candidates.some(({ layer }) => layer === current.flipped_layer)) {
      fail(`${at} flipped layer ${current.flipped_layer}, which is not among its candidates`);
    }
    previous = current;
  }
  requireConsistentPatterns(file, fail);
  if (previous !== undefined && previous.index_topk_pattern !== file.index_topk_pattern) {
    fail(
      `"index_topk_pattern" has ${countFull(file.index_topk_pattern)} F layers and is not the last pattern of "trajectory"`,
    );
  }
}

/** Losses of one file that are rounded differently: sums in another order, decimal text. */
const LOSS_TOLERANCE = 1e-9;

/**
 * A file that says two things of one loss has been edited or damaged. Losses on part of the sequences are left alone, and
 * under the objective kl the steps' numbers are of another kind.
 */
function requireConsistentLosses(file: PatternFile, what: string): void {
  const require = (where: string, stated: number, found: number, of: string): void => {
    if (Math.abs(stated - found) <= LOSS_TOLERANCE * (1 + Math.abs(found))) return;
    throw new InputError(`${what}: ${where} is ${stated}, ${of} make it ${found}`);
  };
  for (const field of ["baseline_loss", "loss"] as const) {
    if (file[field] < 0) throw new InputError(`${what}: "${field}" is ${file[field]}; a loss in nats is not negative`);
  }
  for (const [index, step] of file.trajectory.entries()) {
    const chosen = step.candidates.find(({ layer }) => layer === step.flipped_layer);
    if (chosen !== undefined && chosen.sequences === undefined && step.sequences === undefined) {
      require(`"trajectory[${index}].loss"`, step.loss, chosen.loss, `its candidate ${step.flipped_layer}`);
    }
  }
  if (file.search.objective === "kl") return;
  const changed = (where: string, entry: { loss: number; change?: number | undefined }): void => {
    if (entry.change !== undefined) {
      require(`"${where}.change"`, entry.change, entry.loss - file.baseline_loss, "loss and baseline_loss");
    }
  };
  for (const [index, step] of file.trajectory.entries()) {
    if (step.sequences === undefined) changed(`trajectory[${index}]`, step);
  }
  for (const [index, found] of (file.patterns ?? []).entries()) changed(`patterns[${index}]`, found);
  const last = file.patterns?.at(-1);
  if (last !== undefined) require('"loss"', file.loss, last.loss, 'the last of "patterns"');
}

/** Each pattern has the size that it names, the last is the file's, and steps change the layers that they name. */
function requireConsistentPatterns({ patterns, model, ...file }: PatternFile, fail: (message: string) => never): void {
  for (const [index, { index_topk_pattern: pattern, full_layers: full, steps, stability }] of (
    patterns ?? []
  ).entries()) {
    const at = `"patterns[${index}]"`;
    if (pattern.length !== model.layers) fail(`${at} has ${pattern.length} letters, "model.layers" is ${model.layers}`);
    if (countFull(pattern) !== full) fail(`${at} has ${countFull(pattern)} F layers and says ${full}`);
    if (stability !== undefined && stability.full.length !== model.layers) {
      fail(`${at} says of ${stability.full.length} layers how often they are Full, "model.layers" is ${model.layers}`);
    }
    requireConsistentSteps(steps ?? [], at, model.layers, fail);
    const last = steps?.at(-1)?.index_topk_pattern;
    if (last !== undefined && last !== pattern) fail(`${at} is not the last pattern of its "steps"`);
  }
  const last = patterns?.at(-1);
  if (last !== undefined && last.index_topk_pattern !== file.index_topk_pattern) {
    fail(`"index_topk_pattern" is not the last of "patterns"`);
  }
}

function requireConsistentSteps(
  steps: readonly z.infer<typeof otherStep>[],
  where: string,
  layers: number,
  fail: (message: string) => never,
): void {
  let before: string | undefined;
  for (const [index, { index_topk_pattern: pattern, flipped_layers: flipped }] of steps.entries()) {
    const at = `${where} step ${index}`;
    if (pattern.length !== layers) fail(`${at} has ${pattern.length} letters, "model.layers" is ${layers}`);
    const changed = [...pattern].flatMap((letter, layer) => (letter === before?.[layer] ? [] : [layer]));
    if (before !== undefined && changed.join() !== flipped.join())
      fail(`${at} says it flipped layers ${flipped.join(", ")}; those that differ are ${changed.join(", ") || "none"}`);
    before = pattern;
  }
}

function countFull(pattern: string): number {
  return fullLayers(parsePattern(pattern)).length;
}

function short(value: string | number | undefined): string {
  return typeof value === "string" && value.length === 64 ? `${value.slice(0, 12)}...` : String(value);
}
