/** What an evaluation of a pattern returns, and what a decoder offers: the runtime as the rooms above it see it. */
import type { Pattern } from "../pattern/pattern.ts";

/** Mean negative log-likelihood of the tokens that count in one window, in nats. */
export interface SequenceLoss {
  loss: number;
  /** Tokens that count: the window's length less one, or those from `scoredFrom` on. */
  tokens: number;
  /** With the objective `kl`: mean KL divergence from the model's own pattern, in nats; never negative. */
  kl?: number;
}

/** What a search minimises: the loss, or the KL divergence of next-token distributions from the model's own pattern. */
export type Objective = "nll" | "kl";

/** How often layers ran; `naive` is what full forward passes of the same patterns would have run. */
export interface LayerExecutions {
  body: number;
  indexer: number;
  naiveBody: number;
  naiveIndexer: number;
  /** Absent in what an earlier version has recorded. */
  rows?: RowExecutions;
  /** Where layers are loaded in turn: with the first of the evaluations that were made together, what all of them loaded. */
  loads?: LayerLoads;
}

/** Weights that were loaded because memory has no room for all of them. */
export interface LayerLoads {
  /** Passes over the layers. */
  passes: number;
  /** Layers that were loaded, counted each time. */
  layers: number;
  /** Bytes of their weights in the files. */
  bytes: number;
  /** Reading, converting and packing them. */
  seconds: number;
}

/**
 * Token rows through layer bodies: those that ran, and those that each saving spared. Their sum is what full forward
 * passes would have run. `prefix` is less than nothing where a new base costs more than its states have spared so far.
 */
export interface RowExecutions {
  run: number;
  /** Layers below the first difference to the base. */
  prefix: number;
  /** Rows below `index_topk` of the layers that ran. */
  invariant: number;
  /** Layers that a candidate's states have spared: it became the base, or its flip was tried on the next base as well. */
  kept: number;
}

/** LM loss of one pattern on the calibration set. */
export interface Measurement {
  pattern: Pattern;
  /** Nats per token over all sequences, token-weighted, summed with compensation. */
  loss: number;
  /** Standard error of the mean over sequences; null, unknown, with a single one. */
  standardError: number | null;
  /** With the objective `kl`: nats per token as above. */
  kl?: number;
  klStandardError?: number | null;
  tokens: number;
  /** Of the windows that were asked for, in that order. */
  sequences: SequenceLoss[];
  seconds: number;
  executions: LayerExecutions;
}

/** What an evaluation may reuse, and which windows it is about. Only `sequences` changes the result. */
export interface EvaluateOptions {
  /**
   * The pattern that the next candidates depart from: its states at layer boundaries are kept, and a candidate runs only
   * from its first difference to it. States are made sequence by sequence, when a sequence is asked for.
   */
  base?: Pattern | undefined;
  /**
   * Patterns evaluated before that may become the next base, the likeliest first: such a base costs nothing as long as
   * memory has kept its states.
   */
  keep?: readonly Pattern[] | undefined;
  /** Uses nothing that earlier evaluations have left, for those who measure what one costs. */
  afresh?: boolean | undefined;
  /** Indices of windows; all where absent. */
  sequences?: readonly number[] | undefined;
  signal?: AbortSignal | undefined;
}

/** A pattern that is wanted together with others. */
export interface PatternRequest extends Pick<EvaluateOptions, "base" | "sequences"> {
  pattern: Pattern;
}

/** What holds for all patterns that are wanted together. */
export interface EvaluateContext extends Pick<EvaluateOptions, "afresh" | "signal"> {
  /** Asked before each pattern: as in `EvaluateOptions`. */
  keep?: (() => readonly Pattern[]) | undefined;
}

/** Evaluates patterns on a fixed set of token windows. */
export interface PatternEvaluator {
  /**
   * Evaluates patterns that are wanted together: one measurement for each, in their order and as soon as it is finished.
   * Losses are those of single evaluations, to the last bit.
   */
  evaluateAll(requests: readonly PatternRequest[], context?: EvaluateContext): AsyncIterable<Measurement>;
  /** @throws RangeError for a window that is not there, or none at all */
  evaluate(pattern: Pattern, options?: EvaluateOptions): Promise<Measurement>;
  /** Windows that one run or one pass over the layers computes: blocks of consecutive indices, a multiple of it long, leave nobody idle. */
  readonly sideBySide: number;
  /** Its first runs are as fast as any; undefined where that is not known. */
  readonly isWarm?: boolean;
  /** The memory plan, one line for each part, for `--verbose`. */
  readonly plan: string[];
  release(): Promise<void>;
}

/** `evaluateAll` of an evaluator that gains nothing by it: each pattern begins when it is asked for. */
export async function* evaluateInTurn(
  evaluator: Pick<PatternEvaluator, "evaluate">,
  requests: readonly PatternRequest[],
  { keep, ...options }: EvaluateContext = {},
): AsyncGenerator<Measurement> {
  for (const { pattern, ...request } of requests) {
    yield await evaluator.evaluate(pattern, { ...options, ...request, keep: keep?.() });
  }
}

/** Generation with a fixed pattern: a prefill, then one token at a time. */
export interface Decoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  /** Runs the prompt in query chunks; returns the logits of its last token, `[vocab]`. */
  prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array>;
  /** Appends one token; returns the logits after it, `[vocab]`. */
  decode(id: number): Promise<Float32Array>;
  /** Indexer scorings made, and those that Shared layers saved, since opening; one for each layer and forward call. */
  readonly indexerExecutions: { made: number; saved: number };
  /** Bytes of the caches in use: latents and indexer keys. */
  readonly cacheBytes: { latent: number; indexerKey: number };
  readonly plan: string[];
  release(): Promise<void>;
}

/** Where sessions compute. `cuda` is the first GPU, `cuda:0`. */
export type ComputeDevice = "cpu" | "webgpu" | "cuda" | `cuda:${number}`;

/** What `--device` takes. */
export type Device = "auto" | ComputeDevice;

/** What `--devices` takes; `all` is every GPU. */
export type DeviceList = "all" | readonly ComputeDevice[];

/** What weights and activations are on the device. */
export type Dtype = "float32" | "float16";
