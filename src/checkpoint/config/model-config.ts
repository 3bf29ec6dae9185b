/** The numbers of a model, as `config-json.ts` reads them. */
import type { Pattern } from "../../pattern/pattern.ts";
import type { Quantization } from "../quantization.ts";
import type { RopeParameters } from "./rope-parameters.ts";

/** Eps of q_a_layernorm, kv_a_layernorm and the indexer's k_norm: transformers ignores `rms_norm_eps` there. */
export const latentNormEps = 1e-6;

/** The numbers of a model. Names follow config.json. */
export interface DsaConfig {
  name: string;
  /** One of `architectures.ts`. */
  modelType: string;
  vocabSize: number;
  hiddenSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  qLoraRank: number;
  kvLoraRank: number;
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
  vHeadDim: number;
  intermediateSize: number;
  moeIntermediateSize: number;
  nRoutedExperts: number;
  nSharedExperts: number;
  numExpertsPerTok: number;
  nGroup: number;
  topkGroup: number;
  routedScalingFactor: number;
  normTopkProb: boolean;
  /** One entry a layer: does the layer route to experts? */
  sparseLayers: boolean[];
  rmsNormEps: number;
  attentionBias: boolean;
  tieWordEmbeddings: boolean;
  maxPositionEmbeddings: number;
  rope: RopeParameters;
  /** Does the indexer rotate neighbouring pairs (GLM) or halves (DeepSeek-V3.2)? */
  indexerRopeInterleave: boolean;
  indexTopk: number;
  indexHeadDim: number;
  indexNHeads: number;
  /**
   * The model's own pattern: F where it runs an indexer by its config.json. A pattern can be Full only there: an indexer
   * that a checkpoint holds for one of the other layers was not trained with them.
   */
  indexerLayers: Pattern;
  /** Sizes that only this architecture has (`Architecture.ownSizes`), by their names in config.json. */
  ownSizes: Readonly<Record<string, number>>;
  /** How config.json says that the weights are quantised; undefined if it says nothing. */
  quantization: Quantization | undefined;
  bosTokenId: number | undefined;
  eosTokenIds: number[];
  padTokenId: number | undefined;
  /** What was concluded from config.json rather than read in it, for people. */
  notes: string[];
}
