/** What an evaluation of a pattern gives, and what a decoder offers: the runtime as the rooms above it see it. */
import type { Pattern } from "../pattern/pattern.ts";

/** Mean next-token negative log-likelihood of one window, in nats. */
export interface SequenceLoss {
  loss: number;
  /** Predicted tokens: the window's length less one. */
  tokens: number;
}

/** How often layers ran; `naive` is what full forward passes of the same patterns would have run. */
export interface LayerExecutions {
  body: number;
  indexer: number;
  naiveBody: number;
  naiveIndexer: number;
}

/** LM loss of one pattern on the calibration set. */
export interface Measurement {
  pattern: Pattern;
  /** Nats per token over all sequences, token-weighted, summed with compensation. */
  loss: number;
  /** Standard error of the mean over sequences; 0 with a single one. */
  standardError: number;
  tokens: number;
  sequences: SequenceLoss[];
  seconds: number;
  executions: LayerExecutions;
}

/**
 * Evaluates patterns on a fixed set of token windows.
 * `base` is the pattern that the next candidates depart from: its layer-boundary states are kept, and a candidate runs
 * only from its first difference to it. It changes the cost and never the result, and so does `afresh`, which uses nothing
 * of earlier evaluations.
 */
export interface PatternEvaluator {
  evaluate(
    pattern: Pattern,
    options?: { base?: Pattern; afresh?: boolean; signal?: AbortSignal },
  ): Promise<Measurement>;
  /** The memory plan, one line for each part, for `--verbose`. */
  readonly plan: string[];
  release(): Promise<void>;
}

/** Generation with a fixed pattern: a prefill, then one token at a time. */
export interface Decoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  /** Runs the prompt in query chunks; gives the logits of its last token, `[vocab]`. */
  prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array>;
  /** Appends one token; gives the logits after it, `[vocab]`. */
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
