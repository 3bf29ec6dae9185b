/** What a distillation computes, from config.json alone: with a device's speed, about how long it takes. */

import { declaredWeights } from "../checkpoint/bind-weights.ts";
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { elementsIn } from "../checkpoint/dtype.ts";

/**
 * Floating-point operations of a matrix product in the time of one pass over one number of a large tensor: measured on a CPU
 * (a step of the demo model in five shapes: 160 to 270), assumed on a GPU.
 */
const flopsPerValue = 180;
/**
 * Passes over a head's scores: bias, softmax (three), values, sum over heads; gates of the values (quotient, root, product);
 * index scores there and back; top-k.
 */
const passes = { target: 7, gates: 3, indexer: 8, selection: 30 } as const;

/** What config.json does not say of a layer's attention: the size of q_b_proj, and whether its rows gate the heads' values. */
export interface AttentionParts {
  queryElements: number;
  gatesValues: boolean;
}

export function attentionParts(config: DsaConfig): AttentionParts {
  const [layer] = declaredWeights({ ...config, numHiddenLayers: 1 }).layers;
  if (layer === undefined) throw new RangeError("a model without layers");
  const { qB, gatesValues = false } = layer;
  return { queryElements: elementsIn(qB.shape), gatesValues };
}

/** Operations of one token in projections: of a whole layer, of one whose attention a step looks at, of an indexer. */
interface TokenWork {
  whole: number[];
  attention: number;
  indexer: number;
}

function tokenWork(config: DsaConfig, { queryElements }: AttentionParts): TokenWork {
  const { hiddenSize: hidden, numAttentionHeads: heads, qLoraRank, kvLoraRank, vHeadDim } = config;
  const { qkNopeHeadDim: nope, qkRopeHeadDim: rope, indexNHeads, indexHeadDim } = config;
  const keys = hidden * (kvLoraRank + rope) + kvLoraRank * heads * (nope + vHeadDim);
  const queries = hidden * qLoraRank + queryElements;
  const indexer = hidden * (indexHeadDim + indexNHeads) + qLoraRank * indexNHeads * indexHeadDim;
  const output = heads * vHeadDim * hidden;
  const whole = config.sparseLayers.map((isSparse) => {
    const { intermediateSize, moeIntermediateSize, numExpertsPerTok, nSharedExperts, nRoutedExperts } = config;
    const mlp = isSparse
      ? 3 * hidden * moeIntermediateSize * (numExpertsPerTok + nSharedExperts) + hidden * nRoutedExperts
      : 3 * hidden * intermediateSize;
    return 2 * (keys + queries + indexer + output + mlp);
  });
  return { whole, attention: 2 * (keys + queries / 4), indexer: 2 * indexer };
}

/** Operations of sequences of `length` tokens on their way through layer `layer`. */
export function layerOperations(
  config: DsaConfig,
  parts: AttentionParts,
  layer: number,
  sequences: number,
  length: number,
): number {
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexNHeads, indexHeadDim } = config;
  const perPair =
    2 * heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) +
    2 * indexNHeads * indexHeadDim +
    flopsPerValue * (4 * heads + 2 * indexNHeads + passes.selection);
  return sequences * length * ((tokenWork(config, parts).whole[layer] ?? 0) + perPair * length);
}

/**
 * Operations of one step whose batch has `queries` rows of each sequence: `targets` layers looked at, `trained` indexers.
 * @param parts those of `attentionParts`; `gatesValues` only where keys are weighed by their values
 */
export function stepOperations(
  config: DsaConfig,
  parts: AttentionParts,
  { batch, length, queries }: { batch: number; length: number; queries: number },
  { targets, trained }: { targets: number; trained: number },
): number {
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexNHeads, indexHeadDim } = config;
  const { attention, indexer } = tokenWork(config, parts);
  const pairs = batch * queries * length;
  const rows = batch * length;
  const target =
    rows * (attention + 2 * heads * vHeadDim * vHeadDim) +
    pairs * heads * (2 * (qkNopeHeadDim + qkRopeHeadDim) + flopsPerValue * passes.target) +
    (parts.gatesValues ? pairs * heads * (2 * vHeadDim + flopsPerValue * passes.gates) : 0);
  // There, twice in sparse steps, and back.
  const learner =
    3.5 * rows * indexer +
    pairs *
      (3.5 * 2 * indexNHeads * indexHeadDim + flopsPerValue * (indexNHeads * passes.indexer + passes.selection / 2));
  return targets * target + trained * learner;
}
