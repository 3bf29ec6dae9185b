/** Names and shapes of the tensors of a layer with a lightning indexer, latent attention and an MLP or experts. */
import { InputError } from "../../base/errors.ts";
import { isFull } from "../../pattern/pattern.ts";
import type { DsaConfig } from "../config/model-config.ts";
import type { IndexerWeights, LayerWeights, RoutedWeights, SplitUpProjection, Weight } from "../weights.ts";
import type { LayerBinder } from "./architecture.ts";

type OwnParts = Partial<
  Pick<LayerWeights, "inputNorm" | "inputGate" | "postAttentionNorm" | "postAttentionGate" | "qB" | "gatesValues"> &
    Pick<RoutedWeights, "closedScore">
>;

/**
 * The layer of GLM-5 and DeepSeek-V3.2, whose every layer keeps keys and values of its own.
 * @param own what another architecture has in place of these tensors, bound already, and what it has beside them
 */
export function dsaLayer(
  binder: LayerBinder,
  config: DsaConfig,
  layer: number,
  { closedScore, ...own }: OwnParts = {},
): LayerWeights {
  const at = `model.layers.${layer}`;
  const attention = `${at}.self_attn`;
  const { hiddenSize, qLoraRank, kvLoraRank, qkRopeHeadDim, numAttentionHeads: heads } = config;
  const qkHeadDim = config.qkNopeHeadDim + qkRopeHeadDim;
  const latent = kvLoraRank + qkRopeHeadDim;
  const bias = (name: string, size: number) =>
    config.attentionBias ? binder.weight(`${attention}.${name}.bias`, [size]) : undefined;
  return {
    ...own,
    inputNorm: own.inputNorm ?? binder.weight(`${at}.input_layernorm.weight`, [hiddenSize]),
    postAttentionNorm: own.postAttentionNorm ?? binder.weight(`${at}.post_attention_layernorm.weight`, [hiddenSize]),
    qA: binder.weight(`${attention}.q_a_proj.weight`, [qLoraRank, hiddenSize]),
    qABias: bias("q_a_proj", qLoraRank),
    qANorm: binder.weight(`${attention}.q_a_layernorm.weight`, [qLoraRank]),
    qB: own.qB ?? binder.weight(`${attention}.q_b_proj.weight`, [heads * qkHeadDim, qLoraRank]),
    kvA: binder.weight(`${attention}.kv_a_proj_with_mqa.weight`, [latent, hiddenSize]),
    kvABias: bias("kv_a_proj_with_mqa", latent),
    kvANorm: binder.weight(`${attention}.kv_a_layernorm.weight`, [kvLoraRank]),
    kvB: bindUpProjection(binder, config, attention),
    o: binder.weight(`${attention}.o_proj.weight`, [hiddenSize, heads * config.vHeadDim]),
    oBias: bias("o_proj", hiddenSize),
    indexer: isFull(config.indexerLayers, layer) ? bindIndexer(binder, config, `${attention}.indexer`) : undefined,
    mlp: config.sparseLayers[layer]
      ? { ...bindRouted(binder, config, `${at}.mlp`), ...(closedScore === undefined ? {} : { closedScore }) }
      : binder.mlp(`${at}.mlp`, config.intermediateSize),
  };
}

function bindIndexer(binder: LayerBinder, config: DsaConfig, at: string): IndexerWeights {
  const { indexNHeads, indexHeadDim, hiddenSize } = config;
  return {
    wqB: binder.weight(`${at}.wq_b.weight`, [indexNHeads * indexHeadDim, config.qLoraRank]),
    wk: binder.weight(`${at}.wk.weight`, [indexHeadDim, hiddenSize]),
    kNorm: binder.weight(`${at}.k_norm.weight`, [indexHeadDim]),
    kNormBias: binder.weight(`${at}.k_norm.bias`, [indexHeadDim]),
    weightsProj: binder.weight(`${at}.weights_proj.weight`, [indexNHeads, hiddenSize]),
  };
}

function bindUpProjection(binder: LayerBinder, config: DsaConfig, at: string): Weight | SplitUpProjection {
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, vHeadDim, kvLoraRank } = config;
  const whole = `${at}.kv_b_proj.weight`;
  if (!binder.has(whole) && binder.has(`${at}.embed_q.weight`)) {
    const keyUp = binder.weight(`${at}.embed_q.weight`, [heads, kvLoraRank, nope]);
    const valueUp = binder.weight(`${at}.unembed_out.weight`, [heads, vHeadDim, kvLoraRank]);
    if (keyUp.scale !== undefined || valueUp.scale !== undefined) {
      throw new InputError(`"${keyUp.name}" is FP8: in MLX's layout, that is not read`);
    }
    return { name: `${at}.kv_b_proj`, keyUp, valueUp };
  }
  return binder.weight(whole, [heads * (nope + vHeadDim), kvLoraRank]);
}

function bindRouted(binder: LayerBinder, config: DsaConfig, at: string): RoutedWeights {
  const { nRoutedExperts, moeIntermediateSize, nSharedExperts, hiddenSize } = config;
  return {
    router: binder.weight(`${at}.gate.weight`, [nRoutedExperts, hiddenSize]),
    correctionBias: binder.weight(`${at}.gate.e_score_correction_bias`, [nRoutedExperts]),
    experts: binder.experts(at),
    shared: nSharedExperts > 0 ? binder.mlp(`${at}.shared_experts`, moeIntermediateSize * nSharedExperts) : undefined,
  };
}
