/** The folder that a distillation writes: the checkpoint as it was, with the trained indexers in place of its own. */
import { join } from "node:path";
import { InputError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import {
  type DerivedReport,
  type DerivedSettings,
  type DerivedShard,
  type DerivedTensor,
  writeDerivedCheckpoint,
} from "../checkpoint/derived-checkpoint.ts";
import { readSafetensorsMetadata } from "../checkpoint/safetensors-metadata.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { planFiles } from "../engines/applied-checkpoint.ts";
import { readTextIfPresent } from "../formats/text-file.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { indexerTensors } from "../graph/training/indexer-gradient.ts";
import type { IndexerParameters } from "../runtime/training/gradient-session.ts";
import { encodeFloats } from "./stored-floats.ts";

const INDEX = "model.safetensors.index.json";

/**
 * @param trained parameters by layer
 * @param files small files of the new folder: config.json, the card, the manifest
 */
export async function writeDistilledCheckpoint(
  target: string,
  model: ModelFolder,
  trained: ReadonlyMap<number, IndexerParameters>,
  files: { name: string; content: string }[],
  settings: DerivedSettings = {},
): Promise<DerivedReport> {
  const weights = await model.weights();
  const checkpoint = await openTensors(model.path);
  const replaced = new Map<string, () => Iterable<Uint8Array>>();
  for (const [layer, parameters] of trained) {
    const indexer = weights.layers[layer]?.indexer;
    if (indexer === undefined) throw new RangeError(`layer ${layer} has no indexer`);
    for (const tensor of indexerTensors) {
      const { name, dtype, scale } = indexer[tensor];
      if (scale !== undefined)
        throw new InputError(`Tensor ${quoted(name)} is quantized: its training cannot be stored`);
      replaced.set(name, () => [encodeFloats(parameters[tensor], dtype)]);
    }
  }
  const byFile = new Map<string, DerivedTensor[]>();
  for (const { name, dtype, shape, file, offset, length } of checkpoint.tensors.values()) {
    const data = replaced.get(name) ?? { path: join(model.path, file), offset, length };
    byFile.set(file, [...(byFile.get(file) ?? []), { name, dtype, shape, data }]);
  }
  const shards: DerivedShard[] = [];
  for (const file of checkpoint.files) {
    const path = join(model.path, file);
    const tensors = byFile.get(file) ?? [];
    if (tensors.some(({ name }) => replaced.has(name))) {
      const metadata = await readSafetensorsMetadata(path);
      shards.push({ file, tensors, ...(metadata && { metadata }) });
    } else {
      shards.push({ file, source: path });
    }
  }
  const companions = await planFiles(model.path, checkpoint);
  const index = join(model.path, INDEX);
  const text = await readTextIfPresent(index, quoted(index));
  const kept = text === undefined ? [] : [{ name: INDEX, content: text }];
  const small = [...companions.files, ...kept].filter(({ name }) => !files.some((file) => file.name === name));
  return await writeDerivedCheckpoint(target, { shards, files: [...small, ...files] }, settings);
}
