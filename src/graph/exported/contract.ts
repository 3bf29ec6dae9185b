/**
 * The names, types and shapes of the graphs in a model folder: docs/onnx-contract.md in code. Exporter, inspector and
 * runtime all take them from here.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { Dimension } from "../graph-parts.ts";

/** Raised when a graph of an earlier tool would be misread. */
export const contractVersion = 1;

export const manifestName = "indexcache.json";
export const fullModelName = "model.onnx";
export const stageFolder = "stages";

export interface TensorSpec {
  name: string;
  type: OnnxType;
  shape: Dimension[];
}

export interface GraphSpec {
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

/** S: rows of this call; P: rows in the caches; K: selected keys, min(index_topk, P + S). */
const rows = "sequence_length";
const past = "past_sequence_length";
const selected = "selected_keys";

const float = (name: string, ...shape: Dimension[]): TensorSpec => ({ name, type: OnnxType.float, shape });

/** Layers `from` to `to` of a model, the last one not among them. */
export interface LayerRange {
  from: number;
  to: number;
}

/** Width of a latent row: the normed c_kv joined with the rotated k_pe. */
export function latentWidth(config: DsaConfig): number {
  const [content, pe] = latentParts(config);
  return content + pe;
}

/** Its parts: c_kv, then k_pe. */
export function latentParts({ kvLoraRank, qkRopeHeadDim }: DsaConfig): [content: number, pe: number] {
  return [kvLoraRank, qkRopeHeadDim];
}

/** Stage graphs by name; each is a file `stages/<name>.onnx`. */
export type StageName = "embed" | `layer.${number}.indexer` | `layer.${number}.body` | "head" | "loss";

export const indexerStage = (layer: number): StageName => `layer.${layer}.indexer`;
export const bodyStage = (layer: number): StageName => `layer.${layer}.body`;

const ids: TensorSpec = { name: "input_ids", type: OnnxType.int64, shape: [rows] };
const positions: TensorSpec = { name: "position_ids", type: OnnxType.int64, shape: [rows] };
const topk = (name: string): TensorSpec => ({ name, type: OnnxType.int32, shape: [rows, selected] });

/** Every stage that a model folder holds, with the inputs and outputs it must have. */
export function stageSpecs(config: DsaConfig): Map<StageName, GraphSpec> {
  const { hiddenSize, qkRopeHeadDim, indexHeadDim, vocabSize } = config;
  const hidden = (name: string) => float(name, rows, hiddenSize);
  const rotation = [float("cos", rows, qkRopeHeadDim / 2), float("sin", rows, qkRopeHeadDim / 2)];
  const specs = new Map<StageName, GraphSpec>();
  specs.set("embed", { inputs: [ids, positions], outputs: [hidden("hidden_states"), ...rotation] });
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    if (config.indexerLayers[layer] === "F") {
      specs.set(indexerStage(layer), {
        inputs: [hidden("hidden_states"), ...rotation, positions, float("past_indexer_key", past, indexHeadDim)],
        outputs: [topk("topk_indices"), float("indexer_key", rows, indexHeadDim)],
      });
    }
    specs.set(bodyStage(layer), {
      inputs: [
        hidden("hidden_states"),
        ...rotation,
        positions,
        topk("topk_indices"),
        float("past_latent", past, latentWidth(config)),
      ],
      outputs: [hidden("next_hidden_states"), float("latent", rows, latentWidth(config))],
    });
  }
  specs.set("head", { inputs: [hidden("hidden_states")], outputs: [float("logits", rows, vocabSize)] });
  specs.set("loss", {
    inputs: [hidden("hidden_states"), { name: "target_ids", type: OnnxType.int64, shape: [rows] }],
    outputs: [float("negative_log_likelihood", rows)],
  });
  return specs;
}

/** `model.onnx`: the whole model, one bypass input for each layer that owns an indexer and is not the first. */
export function fullModelSpec(config: DsaConfig): GraphSpec {
  const inputs: TensorSpec[] = [ids, positions, { name: "logits_to_keep", type: OnnxType.int64, shape: [1] }];
  const outputs: TensorSpec[] = [float("logits", "logits_to_keep", config.vocabSize)];
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const owns = config.indexerLayers[layer] === "F";
    if (owns && layer > 0) inputs.push({ name: bypassInput(layer), type: OnnxType.bool, shape: [] });
    inputs.push(float(pastLatent(layer), past, latentWidth(config)));
    outputs.push(float(newLatent(layer), rows, latentWidth(config)));
    if (!owns) continue;
    inputs.push(float(pastIndexerKey(layer), past, config.indexHeadDim));
    outputs.push(float(newIndexerKey(layer), rows, config.indexHeadDim));
  }
  return { inputs, outputs };
}

export const bypassPrefix = "indexer_bypass.";
export const bypassInput = (layer: number) => `${bypassPrefix}${layer}`;
export const pastLatent = (layer: number) => `past_latent.${layer}`;
export const newLatent = (layer: number) => `latent.${layer}`;
export const pastIndexerKey = (layer: number) => `past_indexer_key.${layer}`;
export const newIndexerKey = (layer: number) => `indexer_key.${layer}`;
/** Boundary tensors inside `model.onnx`. */
export const hiddenStates = (layer: number) => `hidden_states.${layer}`;
export const topkIndices = (layer: number) => `topk_indices.${layer}`;
