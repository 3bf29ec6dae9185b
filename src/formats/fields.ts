/** Fields that files of several kinds have. */
import { z } from "zod";
import { RUN_TOKENS } from "../base/ngram-sketch.ts";

export const count = z.int().min(0);
export const positive = z.int().min(1);
export const share = z.number().min(0).max(1);
export const seconds = z.number().min(0);
export const nats = z.number().describe("nats per token");
export const hash = z.string().regex(/^[0-9a-f]{64}$/, "expected a SHA-256 as 64 lower-case hex digits");
/** The letters of a pattern. */
export const letters = z.string().regex(/^F[FS]*$/, "expected letters F and S, the first one F");
/** A standard error; null where it is not known: with a single sequence. */
export const error = z.number().min(0).nullable();
export const settings = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

export const modelIdentity = z
  .object({
    name: z.string(),
    architecture: z.string().describe("model_type of config.json"),
    layers: positive.describe("backbone layers; prediction layers (MTP) are not counted"),
    index_topk: positive,
    config_hash: hash.describe("SHA-256 over the parts of the config that decide the numbers"),
    weight_hash: hash.optional().describe("SHA-256 over the weights; absent where a server had them"),
  })
  .describe("The model that the pattern was searched on; a reader refuses it for another one");

export const calibrationIdentity = z.object({
  source: z.string(),
  hash: hash.describe("SHA-256 over the token ids that were used"),
  sequences: positive.describe("that losses are means over"),
  tokens: positive,
  held_out_sequences: positive.optional().describe("of the same set, kept out of a search"),
  sources: z
    .array(
      z.object({
        source: z.string(),
        weight: share.describe("share of the total: losses are weighted means of the sources' means"),
        scored: z.enum(["all", "answers"]).describe("which tokens count: all, or those of answers after their prompts"),
        sequences: positive,
        scored_tokens: positive,
        seed: count.optional().describe("of generated sequences; eval has none of these seeds"),
      }),
    )
    .min(1)
    .optional()
    .describe("where it is more than one set of text"),
});

const largestRunHash = 2 ** 48 - 1;

/** @param mostRuns that it keeps */
export const sketchSchema = (mostRuns: number) =>
  z
    .object({
      n: z.literal(RUN_TOKENS).describe("tokens of a run"),
      limit: count.max(largestRunHash).describe("runs with hashes from 0 up to this one were kept"),
      hashes: z
        .string()
        .max(8 * mostRuns)
        .regex(/^(?:[A-Za-z0-9+/]{8})*$/)
        .describe("ascending, six bytes each, big-endian, in base64; runs that several windows have are left out"),
    })
    .describe("which runs of tokens the set has: eval refuses items that have them too");

/** Layers that were run, one for each sequence; `naive` is what full forward passes would have run. */
export const layerExecutions = z.object({
  body: count,
  indexer: count,
  naive_body: count,
  naive_indexer: count,
  rows: z
    .object({ run: count, prefix: z.int(), invariant: count, kept: count })
    .describe(
      "token rows through layer bodies: those that ran, and those that states below the first difference, rows below index_topk and kept winners spared",
    )
    .optional(),
  loads: z
    .object({ passes: count, layers: count, bytes: count, seconds })
    .optional()
    .describe(
      "layers that were loaded in turn, where memory had no room for the model: passes over the layers, layers loaded, bytes of weights in the files, seconds",
    ),
});

export const toolIdentity = z.object({
  version: z.string(),
  runtime: z.string(),
  device: z.string(),
  /** Absent in files from before there was a choice: float32. */
  dtype: z.string().optional(),
  command: z.string().optional().describe("command line of the run that wrote the file"),
});
