/** What timings say of patterns: speed-ups, the indexers' share, and the limit that it sets. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { BenchFile, BenchMeasurement } from "../../formats/bench-file.ts";
import type { LatencyFile, LatencyPhase } from "../../formats/latency-file.ts";
import { predictLatency } from "../../pattern/latency.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Timings } from "../../runtime/generate/pattern-timer.ts";

export interface NamedPattern {
  name: string;
  pattern: Pattern;
}

/** What a phase did at one context. */
export interface TimedPhase {
  context: number;
  /** Tokens that `seconds` are of. */
  tokens: number;
  timings: Timings;
  chunks?: { timed: number; all: number };
}

/** The entry of a bench file. @param patterns the model's own first */
export function benchMeasurement(patterns: readonly NamedPattern[], phase: TimedPhase): BenchMeasurement {
  const { context, tokens, timings, chunks } = phase;
  const [own] = patterns as readonly [NamedPattern];
  const all = timings.patterns[0] as number[];
  const indexers = fullLayers(own.pattern).length;
  const layers = own.pattern.length;
  const ratios = (seconds: readonly number[], of: readonly number[]) =>
    seconds.map((value, repeat) => value / (of[repeat] as number));
  const without = spreadOf(ratios(timings.withoutIndexers, all));
  const share = 1 - without.median;
  const seconds = spreadOf(all).median;
  // Layers without their indexers take the rest; no measured time is below nothing.
  const otherSeconds = Math.min(spreadOf(timings.other).median, seconds * (1 - share));
  const sharedLayerSeconds = (seconds * (1 - share) - otherSeconds) / layers;
  const fullLayerSeconds = Math.max(0, sharedLayerSeconds + (seconds * share) / indexers);
  const costs = { otherSeconds, fullLayerSeconds, sharedLayerSeconds };
  return {
    context,
    chunks,
    arms: patterns.map(({ name, pattern }, index) => {
      const own = timings.patterns[index] as number[];
      const spread = spreadOf(own);
      const speedup = spreadOf(ratios(all, own));
      const limit = predictLatency(patterns[0]?.pattern ?? pattern, costs) / predictLatency(pattern, costs);
      return {
        pattern: name,
        seconds: spread,
        tokens_per_second: tokens / spread.median,
        speedup,
        limit,
        of_limit: speedup.median / limit,
      };
    }),
    indexers: {
      share,
      share_low: 1 - without.high,
      share_high: 1 - without.low,
      seconds_without: spreadOf(timings.withoutIndexers),
      alone_share: indexers * spreadOf(ratios(timings.alone, all)).median,
      seconds_alone: spreadOf(timings.alone),
    },
    costs: {
      other_seconds: otherSeconds,
      full_layer_seconds: fullLayerSeconds,
      shared_layer_seconds: sharedLayerSeconds,
    },
  };
}

/**
 * Whether the indexers' share is lost in noise: some repeat says that they take nothing, or less. The limit that it sets
 * then means nothing either.
 */
export function isWithinNoise({ indexers: { share, share_low: low = share } }: BenchMeasurement): boolean {
  return low <= 0;
}

/** Faster, in every repeat, than if Shared layers cost nothing for their indexers: something else differed. */
export function isAboveLimit({ speedup, limit }: BenchMeasurement["arms"][number]): boolean {
  return speedup.low > limit && speedup.median > 1.02 * limit;
}

/** A line for each arm of each context. */
export function timedArms(measurements: readonly BenchMeasurement[]) {
  return measurements.flatMap((measurement) => {
    const noise = isWithinNoise(measurement);
    return measurement.arms.map((arm, index) => ({ ...measurement, arm, index, isFirst: index === 0, noise }));
  });
}

/** The latency file of a finished bench. */
export function latencyRecord({ model, machine, prefill, decode, tool }: BenchFile): LatencyFile {
  const costs = (phase: LatencyPhase, measurements: readonly BenchMeasurement[]) =>
    measurements.map(({ context, costs: of }) => ({ phase, context, ...of }));
  return {
    kind: "indexcache-latency",
    schema_version: 1,
    model,
    machine,
    costs: [...costs("prefill", prefill), ...costs("decode", decode)],
    tool,
  };
}

/** The numbers of a config that decide what attention and indexers cost. */
export function geometryRecord(config: DsaConfig): BenchFile["model"]["geometry"] {
  return {
    hidden_size: config.hiddenSize,
    num_attention_heads: config.numAttentionHeads,
    q_lora_rank: config.qLoraRank,
    kv_lora_rank: config.kvLoraRank,
    qk_nope_head_dim: config.qkNopeHeadDim,
    qk_rope_head_dim: config.qkRopeHeadDim,
    v_head_dim: config.vHeadDim,
    index_n_heads: config.indexNHeads,
    index_head_dim: config.indexHeadDim,
    index_topk: config.indexTopk,
  };
}

/** Repeated measurements in three numbers. */
interface Spread {
  median: number;
  low: number;
  high: number;
}

/** @throws RangeError for an empty list */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) throw new RangeError("spread of nothing");
  const at = (share: number) => sorted[Math.floor(share)] as number;
  const middle = (sorted.length - 1) / 2;
  return { median: (at(middle) + at(Math.ceil(middle))) / 2, low: at(0), high: at(sorted.length - 1) };
}
