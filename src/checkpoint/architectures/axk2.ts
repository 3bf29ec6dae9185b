/**
 * A.X-K2 (SK Telecom; transformers' AXK2Config and AXK2DecoderLayer): DeepSeek-V3.2's layer with gated norms, and with gates of
 * the heads' values that come out of the query projection.
 */
import type { NormGate, Weight } from "../weights.ts";
import type { Architecture, LayerBinder } from "./architecture.ts";
import { dsaLayer } from "./dsa-layer-weights.ts";

export const axk2: Architecture = {
  className: "AXK2",
  defaults: {
    normEps: 1e-6,
    positions: 131072,
    indexHeads: 16,
    experts: 128,
    expertWidth: 512,
    groups: 1,
    keptGroups: 1,
    denseLayers: 1,
    indexerRopeInterleave: false,
  },
  ownSizes: { gated_norm_rank: 16 },
  layer(binder, config, layer) {
    const { hiddenSize, qLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, numAttentionHeads: heads } = config;
    const at = `model.layers.${layer}`;
    const { gated_norm_rank: rank = 0 } = config.ownSizes;
    const gated = (name: string) => gatedNorm(binder, `${at}.${name}`, hiddenSize, rank);
    // The released names; transformers calls it q_gate_proj.
    const queries = [heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim), 2 * qLoraRank];
    const { norm: inputNorm, gate: inputGate } = gated("input_layernorm");
    const own = {
      inputNorm,
      inputGate,
      qB: binder.weight(`${at}.self_attn.q_b_proj.weight`, queries),
      gatesValues: true,
    };
    if (config.sparseLayers[layer] !== true) return dsaLayer(binder, config, layer, own);
    const { norm: postAttentionNorm, gate: postAttentionGate } = gated("post_attention_layernorm");
    // An expert of a closed group scores 0, which is more than an open one whose bias outweighs its probability.
    return dsaLayer(binder, config, layer, { ...own, postAttentionNorm, postAttentionGate, closedScore: 0 });
  },
};

function gatedNorm(binder: LayerBinder, at: string, width: number, rank: number): { norm: Weight; gate: NormGate } {
  return {
    norm: binder.weight(`${at}.norm.weight`, [width]),
    gate: {
      down: binder.weight(`${at}.W_down.weight`, [rank, width]),
      up: binder.weight(`${at}.W_up.weight`, [width, rank]),
    },
  };
}
