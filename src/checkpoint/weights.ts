/** The weights of a model, each with its place in a file: `bind-weights.ts` finds them. */

import { isFull, type Pattern } from "../pattern/pattern.ts";
import { elementsIn } from "./dtype.ts";

/** A weight and where its bytes lie; an FP8 weight carries its block scales. */
export interface Weight {
  name: string;
  dtype: string;
  shape: number[];
  file: string;
  /** Where that file really lies, links followed: see `CheckpointTensors.places`. */
  location: string;
  offset: number;
  length: number;
  scale?: BlockScale;
}

/** FP8 scales `[across, along]`: one for each block of `rows` x `columns`, the blocks at the lower and right edge partial. */
export interface BlockScale {
  weight: Weight;
  rows: number;
  columns: number;
  /** Row of the scaled matrix that the weight's first row is: the weight may be a part of it. */
  firstRow: number;
}

/** The up projection of keys and values, cut in two as MLX keeps it: `[H, r, nope]` and `[H, dv, r]`. */
export interface SplitUpProjection {
  name: string;
  keyUp: Weight;
  valueUp: Weight;
}

/** SwiGLU: `down(silu(gate x) * up x)`. */
export interface MlpWeights {
  gate: Weight;
  up: Weight;
  down: Weight;
}

export interface IndexerWeights {
  wqB: Weight;
  wk: Weight;
  kNorm: Weight;
  kNormBias: Weight;
  weightsProj: Weight;
}

export interface RoutedWeights {
  router: Weight;
  correctionBias: Weight;
  /** What experts of groups that are closed score: minus infinity, unless given. */
  closedScore?: 0;
  experts: MlpWeights[];
  shared: MlpWeights | undefined;
}

/** A gate of normed rows y, which become `y sigmoid(up(silu(down(y))))`. */
export interface NormGate {
  down: Weight;
  up: Weight;
}

/** The tensors of a layer. Parts that are absent are not in its graphs: that is how architectures differ. */
export interface LayerWeights {
  inputNorm: Weight;
  inputGate?: NormGate | undefined;
  postAttentionNorm: Weight;
  postAttentionGate?: NormGate | undefined;
  qA: Weight;
  qABias: Weight | undefined;
  qANorm: Weight;
  /** Queries, head by head, of c_q; with `gatesValues` it reads c_q and its rows before their norm, side by side. */
  qB: Weight;
  /** Does each head's block of `qB` end with `v_head_dim` rows whose sigmoid multiplies the head's values? */
  gatesValues?: boolean | undefined;
  kvA: Weight;
  kvABias: Weight | undefined;
  kvANorm: Weight;
  kvB: Weight | SplitUpProjection;
  o: Weight;
  oBias: Weight | undefined;
  /** Absent where config.json makes this layer Shared, whatever the checkpoint holds. */
  indexer: IndexerWeights | undefined;
  mlp: MlpWeights | RoutedWeights;
}

export interface ModelWeights {
  folder: string;
  files: string[];
  bytes: number;
  embedding: Weight;
  finalNorm: Weight;
  lmHead: Weight;
  layers: LayerWeights[];
  /** Layers that config.json makes Shared although the checkpoint holds an indexer for them; transformers drops those. */
  leftoverIndexers: number[];
}

export function isRouted(mlp: MlpWeights | RoutedWeights): mlp is RoutedWeights {
  return "router" in mlp;
}

/** The tensor of the checkpoint that a weight is, or is a part of. */
export function tensorName(weight: string): string {
  return weight.replace(/(\[\d+(:\d+)?\])+$/, "");
}

/** Every distinct weight of the model, for streaming over the bytes that it really uses. */
export function listWeights({ embedding, finalNorm, lmHead, layers }: ModelWeights): Weight[] {
  return weightsIn([embedding, finalNorm, lmHead, layers]);
}

/** Every distinct weight in a part of the model, scales included. */
export function weightsIn(part: unknown): Weight[] {
  const found = new Map<string, Weight>();
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) for (const item of value) visit(item);
    else if (value !== null && typeof value === "object") {
      if ("offset" in value && "dtype" in value) found.set((value as Weight).name, value as Weight);
      for (const item of Object.values(value)) visit(item);
    }
  };
  visit(part);
  return [...found.values()];
}

/** Elements of the weights that a pattern's graph holds: indexers of Shared layers are not in it. */
export function elementsOf(weights: ModelWeights, pattern: Pattern): number {
  const layers = weights.layers.map((layer, index) =>
    isFull(pattern, index) ? layer : { ...layer, indexer: undefined },
  );
  return elementCount(listWeights({ ...weights, layers }));
}

/** Elements of some weights, without scales, which are folded into what they scale. */
export function elementCount(weights: readonly Weight[]): number {
  const scales = new Set(weights.flatMap(({ scale }) => (scale === undefined ? [] : [scale.weight.name])));
  return weights.filter(({ name }) => !scales.has(name)).reduce((total, { shape }) => total + elementsIn(shape), 0);
}

/** Bytes of some weights in their files. */
export function storedBytes(weights: readonly Weight[]): number {
  return weights.reduce((total, { length }) => total + length, 0);
}

/** Weights in the order of their files, those that lie one after the other together. */
export function adjacentWeights(weights: readonly Weight[]): [Weight, ...Weight[]][] {
  const runs: [Weight, ...Weight[]][] = [];
  let last: Weight | undefined;
  for (const weight of weights.toSorted((a, b) => a.location.localeCompare(b.location) || a.offset - b.offset)) {
    const follows = last?.location === weight.location && last.offset + last.length === weight.offset;
    if (follows) runs.at(-1)?.push(weight);
    else runs.push([weight]);
    last = weight;
  }
  return runs;
}
