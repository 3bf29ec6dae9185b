/** What computes the losses of windows, in this process or in others. */
import type { Pattern } from "../../pattern/pattern.ts";
import type {
  ComputeDevice,
  Dtype,
  EvaluateOptions,
  LayerExecutions,
  LayerLoads,
  PatternRequest,
  RowExecutions,
  SequenceLoss,
} from "../measurement.ts";
import type { Recording } from "../session/recording.ts";
import type { LayerRoom } from "../stages/stage-sessions.ts";

/** Losses of windows for one pattern: what a process can answer. */
export interface SequenceResults {
  sequences: SequenceLoss[];
  executions: CountedExecutions;
}

/** What holds for all patterns that are asked for together. */
export type TogetherOptions = Omit<EvaluateOptions, "base" | "sequences">;

export abstract class SequenceLosses {
  /** Windows that one run or one pass over the layers computes. */
  abstract readonly sideBySide: number;
  /** How many patterns one call may ask for: many where layers are loaded in turn, each then once for all of them. */
  abstract readonly patternsAtOnce: number;
  abstract readonly plan: string[];
  /** What it computes with has run already, on other sequences: its first runs are as fast as any. */
  readonly isWarm: boolean = false;
  /** Evaluates as many of the patterns, from the first one on, as there is room for: at least one. */
  abstract evaluateAll(requests: readonly PatternRequest[], options?: TogetherOptions): Promise<SequenceResults[]>;
  abstract release(): Promise<void>;

  async evaluate(pattern: Pattern, { base, sequences, ...options }: EvaluateOptions = {}): Promise<SequenceResults> {
    return (await this.evaluateAll([{ pattern, base, sequences }], options))[0] as SequenceResults;
  }
}

/** What every way of computing losses knows about its share of the windows. */
export interface BackendSettings {
  device: ComputeDevice;
  /** Weights and activations; scores, softmax and norms are float32 in any case. */
  dtype: Dtype;
  threads: number;
  /** Bytes of host memory that boundary states may take; 0 runs every candidate from the first layer. */
  stateBytes: number;
  /** Bytes of a temporary file for boundary states beyond that; sequences beyond both run every layer each time. */
  spillBytes?: number | undefined;
  /** Which layers stay in memory where not all of them have room; then the device is `cpu`, in float32. */
  room?: LayerRoom | undefined;
  /**
   * How many of a row's most likely tokens are kept of the model's own distribution, the others as one mass, where divergences
   * from it are asked for beside losses. The more, the closer the divergence comes to the whole one from below (docs/log.md).
   */
  top?: number | undefined;
  /** Windows that are asked for at once, at least: on a GPU a run then holds no more of them. All where absent. */
  together?: number | undefined;
  /** Position of the first token that counts, for each window; 1 where absent. */
  scoredFrom?: readonly number[] | undefined;
  /** What messages call the windows; 0 and up where absent. */
  numbers?: readonly number[] | undefined;
  /** Profiles the sessions of this process: with `workers: 1` all there are. */
  recording?: Recording | undefined;
}

/** The places that were asked for, in that order; all where nothing is said. */
export function chosen<T>(all: readonly T[], indices: readonly number[] | undefined): T[] {
  return indices === undefined ? [...all] : indices.map((index) => all[index] as T);
}

/** What evaluations took. */
export interface CountedExecutions extends LayerExecutions {
  rows: RowExecutions;
}

export function noExecutions(): CountedExecutions {
  return { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0, rows: { run: 0, prefix: 0, invariant: 0, kept: 0 } };
}

export function sumExecutions(parts: Iterable<CountedExecutions>): CountedExecutions {
  const total = noExecutions();
  for (const { rows, loads, ...layers } of parts) {
    for (const key of Object.keys(layers) as (keyof typeof layers)[]) total[key] += layers[key];
    if (loads !== undefined) {
      total.loads ??= { passes: 0, layers: 0, bytes: 0, seconds: 0 };
      for (const key of Object.keys(loads) as (keyof LayerLoads)[]) total.loads[key] += loads[key];
    }
    for (const key of Object.keys(rows) as (keyof RowExecutions)[]) total.rows[key] += rows[key];
  }
  return total;
}
