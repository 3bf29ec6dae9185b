/** What a checkpoint holds and its model does not use: if that contradicts config.json, the user is told. */

import type { DsaConfig } from "./config/model-config.ts";
import { weightTypes } from "./dtype.ts";
import { scaleSuffixes } from "./scales.ts";
import type { CheckpointTensors } from "./shards.ts";
import { byModelName, layerOf } from "./tensor-names.ts";
import { listWeights, type ModelWeights, tensorName } from "./weights.ts";

/** Tensors that no model of transformers would load either, and that mean nothing for its numbers. */
const harmless = /\.rotary_emb\.inv_freq$|\.(input|output|k|v|q)_scale$|\.weight_shape$|\.indexer\./;
/** What only prediction layers (MTP) hold. */
const prediction = /\.(eh_proj|enorm|hnorm|shared_head)\b/;

/** @returns sentences, none for a checkpoint that holds what its config says */
export function unusedTensorNotes(config: DsaConfig, checkpoint: CheckpointTensors, weights: ModelWeights): string[] {
  const where = `"${checkpoint.folder}"`;
  const used = new Set(listWeights(weights).map(({ name }) => tensorName(name)));
  const named = byModelName(checkpoint.tensors);
  const predictive = new Set<number>();
  for (const name of named.keys()) if (prediction.test(name)) predictive.add(layerOf(name) ?? -1);
  const scales: string[] = [];
  const layers = new Set<number>();
  const others: string[] = [];
  for (const [name, tensor] of named) {
    if (used.has(tensor.name) || harmless.test(name)) continue;
    const layer = layerOf(name);
    if (layer !== undefined && layer >= config.numHiddenLayers) {
      if (!predictive.has(layer)) layers.add(layer);
    } else if (scaleSuffixes.some((suffix) => name.endsWith(suffix))) scales.push(tensor.name);
    else if (name.startsWith("model.layers.") || name.startsWith("lm_head.")) others.push(tensor.name);
  }
  const notes: string[] = [];
  if (layers.size > 0) {
    const [first, last] = [Math.min(...layers), Math.max(...layers)];
    const range = first === last ? `layer ${first}` : `layers ${first} to ${last}`;
    notes.push(
      `${where} holds ${range}; config.json has ${config.numHiddenLayers} layers, numbered from 0 (num_hidden_layers), so ${layers.size === 1 ? "it is" : "they are"} not run`,
    );
  }
  if (scales.length > 0)
    notes.push(`${where} holds ${counted(scales, "scale")} of weights that are not FP8: not applied`);
  if (others.length > 0)
    notes.push(`${where} holds ${counted(others, "tensor")} without a place in the model: not used`);
  return [...notes, ...formatNotes(config, weights, where), ...headNotes(config, weights, where)];
}

function formatNotes({ quantization }: DsaConfig, weights: ModelWeights, where: string): string[] {
  const matrices = listWeights(weights).filter(({ dtype }) => weightTypes[dtype] !== undefined);
  const isFp8 = matrices.some(({ dtype }) => dtype === "F8_E4M3");
  if (quantization === undefined) return [];
  if (isFp8) {
    return quantization.isFp8 === false
      ? [`${where}: config.json says that the weights are ${quantization.words}; they are FP8, and read as FP8`]
      : [];
  }
  return [
    `${where}: config.json says that the weights are quantised (${quantization.words}); they are not, and read as stored`,
  ];
}

function headNotes(config: DsaConfig, { embedding, lmHead }: ModelWeights, where: string): string[] {
  if (!config.tieWordEmbeddings || embedding.name === lmHead.name) return [];
  return [`${where}: tie_word_embeddings is true and "${lmHead.name}" is there; it is used, as transformers does`];
}

function counted(names: readonly string[], noun: string): string {
  const [first] = names;
  return names.length === 1 ? `a ${noun} ("${first}")` : `${names.length} ${noun}s ("${first}" is one)`;
}
