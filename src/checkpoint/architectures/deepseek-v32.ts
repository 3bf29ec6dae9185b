/** DeepSeek-V3.2 (transformers' DeepseekV32Config and DeepseekV32DecoderLayer). */
import type { Architecture } from "./architecture.ts";
import { dsaLayer } from "./dsa-layer-weights.ts";

export const deepseekV32: Architecture = {
  className: "DeepseekV32",
  defaults: {
    normEps: 1e-6,
    positions: 163840,
    indexHeads: 64,
    experts: 256,
    expertWidth: 2048,
    groups: 8,
    keptGroups: 4,
    denseLayers: 3,
    indexerRopeInterleave: false,
  },
  layer: dsaLayer,
};
