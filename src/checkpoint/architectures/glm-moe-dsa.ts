/** GLM-5 (transformers' GlmMoeDsaConfig and GlmMoeDsaDecoderLayer). */
import type { Architecture } from "./architecture.ts";
import { dsaLayer } from "./dsa-layer-weights.ts";

export const glmMoeDsa: Architecture = {
  className: "GlmMoeDsa",
  defaults: {
    normEps: 1e-5,
    positions: 202752,
    indexHeads: 32,
    experts: 256,
    expertWidth: 2048,
    groups: 1,
    keptGroups: 1,
    denseLayers: 3,
    indexerRopeInterleave: true,
  },
  layer: dsaLayer,
};
