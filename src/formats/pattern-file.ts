/**
 * The pattern file: what `search` writes and everything else reads. One JSON object, snake_case like the configs that
 * it is pasted into; `docs/pattern-format.md` explains it and `docs/pattern.schema.json` is generated from here.
 */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode, writeFileAtomically } from "../base/files.ts";
import { fullLayers, type Pattern, parsePattern } from "../pattern/pattern.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
export const PATTERN_SCHEMA_VERSION = 1;

const hash = z.string().regex(/^[0-9a-f]{64}$/, "expected a SHA-256 as 64 lower-case hex digits");
/** The letters of a pattern, in every file that holds one. */
export const letters = z.string().regex(/^F[FS]*$/, "expected letters F and S, the first one F");
const count = z.int().min(0);
const nats = z.number().describe("nats per token");

const modelIdentity = z
  .object({
    name: z.string(),
    architecture: z.string().describe("model_type of config.json"),
    layers: z.int().min(1).describe("backbone layers; prediction layers (MTP) are not counted"),
    index_topk: z.int().min(1),
    config_hash: hash.describe("SHA-256 over the parts of the config that decide the numbers"),
    weight_hash: hash.describe("SHA-256 over the weights"),
  })
  .describe("The model that the pattern was searched on; a reader refuses it for another one");

const step = z.object({
  index_topk_pattern: letters.describe("the pattern after this step"),
  flipped_layer: z.int().min(1).describe("the layer that this step made Shared"),
  loss: nats,
  standard_error: z.number().min(0).describe("of the mean over sequences"),
  candidates: z
    .array(z.object({ layer: z.int().min(1), loss: nats }))
    .min(1)
    .describe("every layer that was tried in this step, with the loss it would have given"),
});

const settings = z
  .object({
    beam_width: z.int().min(1).optional(),
    direction: z.enum(["backward", "forward"]).optional(),
    swaps: z.boolean().optional().describe("single exchanges of layers behind the strategy"),
  })
  .describe("of the strategy; absent where it has none");

const otherStep = z.object({
  index_topk_pattern: letters.describe("the pattern after this step"),
  flipped_layers: z
    .array(z.int().min(1))
    .min(1)
    .describe("layers that this step changed, ascending; what they became is their letter in the pattern"),
  loss: nats,
  standard_error: z.number().min(0).describe("of the mean over sequences"),
  candidates: z.int().min(1).describe("how many patterns were tried from the same one"),
});

const secondLook = z
  .object({
    first_pattern: letters.describe("greedy's"),
    first_loss: nats,
    gain: z.number().min(0).describe("nats per token below first_loss; often 0"),
    evaluations: count.describe("patterns evaluated after greedy"),
    forward: z.boolean().describe("whether the forward beam fitted into the budget; where not, there were swaps only"),
    finished: z.boolean().describe("whether the swaps came to their end before the budget did"),
  })
  .describe("of look-again");

export const patternFileSchema = z
  .object({
    schema_version: z.literal(PATTERN_SCHEMA_VERSION),
    index_topk_pattern: letters.describe(
      "one letter a layer: F runs its indexer, S reuses the indices of the F before it",
    ),
    model: modelIdentity,
    calibration: z.object({
      source: z.string(),
      hash: hash.describe("SHA-256 over the token ids that were used"),
      sequences: z.int().min(1),
      tokens: z.int().min(1),
    }),
    baseline_loss: nats.describe("of the model's own pattern, nats per token"),
    loss: nats.describe("of index_topk_pattern, nats per token"),
    trajectory: z.array(step).describe("the committed steps of greedy, first to last; empty for other searches"),
    search: z.object({
      strategy: z.string(),
      evaluations: count.describe("patterns evaluated"),
      layer_executions: z
        .object({ body: count, indexer: count, naive_body: count, naive_indexer: count })
        .describe("layers run, one for each sequence; naive is what full forward passes would have run"),
      seconds: z.number().min(0),
      settings: settings.optional(),
      steps: z
        .array(otherStep)
        .optional()
        .describe("of other searches than greedy: how the pattern came about, where trajectory is empty"),
      second_look: secondLook.optional(),
    }),
    tool: z.object({
      version: z.string(),
      runtime: z.string(),
      device: z.string(),
      /** Absent in files from before there was a choice: float32. */
      dtype: z.string().optional(),
    }),
  })
  .meta({ title: "IndexCache pattern file" });

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
  return { ...file, index_topk_pattern: parsePattern(file.index_topk_pattern, what) };
}

/** The text of a file that should hold a pattern. */
export async function readPatternText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new InputError(`Cannot read pattern file "${path}": ${describeSystemError(code)}`, {
      hint: "a pattern is a file, letters F and S, full, uniform:N or freq:N",
      cause: error,
    });
  }
}

/** Writes a pattern file, all or nothing. What would not be readable again is a defect and throws before writing. */
export async function writePatternFile(path: string, file: PatternFile): Promise<void> {
  await writeFileAtomically(path, formatPatternFile(file));
}

/** The text of a pattern file: the search's trajectory one candidate list a line, so that a diff stays readable. */
export function formatPatternFile(file: PatternFile): string {
  requireConsistency(patternFileSchema.parse(file), "Pattern file");
  const text = JSON.stringify(file, null, 2);
  return `${text.replace(/\{\s+"layer": (\d+),\s+"loss": ([^\s}]+)\s+\}/g, '{ "layer": $1, "loss": $2 }')}\n`;
}

/**
 * Refuses a pattern that was searched on another model: the same letters on other weights mean nothing.
 * The name is not compared, a folder may be renamed.
 */
export function requireSameModel(file: PatternFile, model: ModelIdentityRecord, path: string): void {
  const compared = ["architecture", "layers", "index_topk", "config_hash", "weight_hash"] as const;
  const differing = compared.filter((field) => file.model[field] !== model[field]);
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
  requireConsistentSteps(file, fail);
  if (previous !== undefined && previous.index_topk_pattern !== file.index_topk_pattern) {
    fail(
      `"index_topk_pattern" has ${fullLayers(parsePattern(file.index_topk_pattern)).length} F layers and is not the last pattern of "trajectory"`,
    );
  }
}

/** Each step of `search.steps` changes the layers that it names, and nothing else, in the pattern before it. */
function requireConsistentSteps(file: PatternFile, fail: (message: string) => never): void {
  let before: string | undefined;
  for (const [index, { index_topk_pattern: pattern, flipped_layers: flipped }] of (file.search.steps ?? []).entries()) {
    const at = `"search.steps[${index}]"`;
    const { layers } = file.model;
    if (pattern.length !== layers) fail(`${at} has ${pattern.length} letters, "model.layers" is ${layers}`);
    const changed = [...pattern].flatMap((letter, layer) => (letter === before?.[layer] ? [] : [layer]));
    if (before !== undefined && changed.join() !== flipped.join())
      fail(`${at} says it flipped layers ${flipped.join(", ")}; those that differ are ${changed.join(", ") || "none"}`);
    before = pattern;
  }
  if (before !== undefined && before !== file.index_topk_pattern) {
    fail(`"index_topk_pattern" is not the last pattern of "search.steps"`);
  }
}

function short(value: string | number): string {
  return typeof value === "string" && value.length === 64 ? `${value.slice(0, 12)}...` : String(value);
}
