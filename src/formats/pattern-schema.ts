/**
 * The schema of the pattern file: one JSON object, snake_case like the configs that it is pasted into; `docs/pattern-format.md`
 * explains it and `docs/pattern.schema.json` is generated from here.
 */
import { z } from "zod";
import { CALIBRATION_RUNS } from "../base/ngram-sketch.ts";
import {
  calibrationIdentity,
  count,
  error,
  layerExecutions,
  letters,
  modelIdentity,
  nats,
  positive,
  settings,
  share,
  sketchSchema,
  toolIdentity,
} from "./fields.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
export const PATTERN_SCHEMA_VERSION = 1;

const servedBy = z
  .object({
    engine: z.enum(["vllm", "sglang"]).describe("whose routes the server has"),
    title: z.string().describe("the engine and its version"),
    served_model: z.string(),
    servers: positive.describe("replicas that shared the sequences"),
    tensor_parallel: positive,
    pipeline_parallel: positive,
    dtype: z.string().optional(),
    kv_cache_dtype: z.string().optional(),
    head_dtype: z.string().optional().describe("of the logits; model is the model's own"),
    scored_from: positive.describe("position of the first token in each sequence that losses are over"),
    noise: z
      .number()
      .min(0)
      .describe("standard error of a mean loss because a repeated measurement differs, with every indexer"),
  })
  .describe("The engine that measured the losses, where it was not this tool; such numbers repeat up to noise");

const changeError = error.describe("standard error of that difference, sequence by sequence");

const predictedSpeedup = z.number().describe("against every layer Full, by the costs of a latency file");

const candidate = z.object({
  layer: positive,
  loss: nats,
  change_error: changeError.optional(),
  sequences: positive.optional().describe("that it was measured on; all where absent"),
  dropped: z.boolean().optional().describe("shown not to be the best before all sequences were measured"),
});

const lead = z.object({
  over: positive.describe("layer of the next best candidate"),
  nats: z.number().describe("how far the step's choice is ahead of it"),
  standard_error: error.describe("of the lead, sequence by sequence"),
  sequences: positive,
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
      .array(positive)
      .describe("layers that were not told from the step's choice after them; the lowest was taken"),
  })
  .describe("of a search on a server, whose measurements repeat up to noise");

const measured = {
  index_topk_pattern: letters.describe("the pattern after this step"),
  loss: nats,
  standard_error: error.describe("of the mean over sequences"),
  change: z.number().optional().describe("loss less baseline_loss"),
  change_error: changeError.optional(),
  sequences: positive.optional().describe("that it was measured on; all where absent"),
  lead: lead.optional(),
  repetition: repetition.optional(),
};

const step = z.object({
  ...measured,
  flipped_layer: positive.describe("the layer that this step made Shared"),
  candidates: z
    .array(candidate)
    .min(1)
    .describe("every layer that was tried in this step, with the loss it would have given"),
});

const otherStep = z.object({
  ...measured,
  flipped_layers: z
    .array(positive)
    .min(1)
    .describe("layers that this step changed, ascending; what they became is their letter in the pattern"),
  candidates: positive.describe("how many patterns were tried from the same one"),
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
    resamples: positive.describe("of the sequences, with replacement, each of as many as the search judged by"),
    agreement: share.describe("share of the resamples whose search chooses this pattern"),
    full: z.array(share).min(1).describe("for each layer, the share of the resamples in which it is Full"),
    sequences_needed: positive
      .optional()
      .describe("with so many 9 of 10 resamples choose this pattern; absent where sequences_tried were too few"),
    sequences_tried: positive.describe("the most that resamples had"),
  })
  .describe("whether other text of the same kind would lead to the same pattern, by the losses that were measured");

const found = z.object({
  full_layers: positive,
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
  full_layers: positive,
  index_topk_pattern: letters,
  loss: nats,
  change: z.number(),
  change_error: changeError,
  sequences: positive.optional().describe("that it was measured on; all where absent"),
  predicted_speedup: predictedSpeedup.optional(),
});

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
      .object({ phase: z.enum(["prefill", "decode"]), context: positive })
      .optional()
      .describe("what predicted_speedup is of"),
    knee: positive
      .optional()
      .describe("Full layers where the loss begins to rise faster than on average over frontier"),
    search: z.object({
      strategy: z.string(),
      objective: z
        .enum(["nll", "kl", "answer"])
        .optional()
        .describe("what was minimised; nll where absent. answer: the loss of the tokens of answers"),
      settings: settings.optional().describe("of the strategy, and constraints"),
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
      layer_executions: layerExecutions.describe(
        "layers run, one for each sequence; naive is what full forward passes would have run",
      ),
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
