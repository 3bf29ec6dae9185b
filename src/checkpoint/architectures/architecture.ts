/** What sets one architecture apart from the others; each is a file here and a line in `architectures.ts`. */
import type { DsaConfig } from "../config/model-config.ts";
import type { LayerWeights, MlpWeights, Weight } from "../weights.ts";

export interface Architecture {
  /** How names of its classes in `architectures` of config.json begin. */
  className: string;
  /** What transformers assumes where a field of config.json is absent. */
  defaults: {
    normEps: number;
    positions: number;
    indexHeads: number;
    experts: number;
    expertWidth: number;
    groups: number;
    keptGroups: number;
    /** Layers with one MLP before those with experts. */
    denseLayers: number;
    /** Does the indexer rotate neighbouring pairs, or halves? */
    indexerRopeInterleave: boolean;
  };
  /** Sizes in config.json that only this architecture has, and what is assumed where one is absent. */
  ownSizes?: Readonly<Record<string, number>>;
  /**
   * The tensors of a layer: which it has decides what its graphs compute (`LayerWeights`).
   * @throws InputError for a tensor that is missing or of another shape
   */
  layer(binder: LayerBinder, config: DsaConfig, layer: number): LayerWeights;
}

/** Finds tensors of a checkpoint by transformers' names. */
export interface LayerBinder {
  has(name: string): boolean;
  /** A weight of this shape: a vector, a matrix, or matrices one after the other (experts, heads). */
  weight(name: string, shape: number[]): Weight;
  mlp(at: string, intermediate: number): MlpWeights;
  experts(at: string): MlpWeights[];
}
