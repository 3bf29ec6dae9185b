/** The folder that a distillation writes: the checkpoint as it was, with the trained indexers in place of its own. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../base/errors.ts";
import {
  type DerivedReport,
  type DerivedSettings,
  type DerivedShard,
  type DerivedTensor,
  writeDerivedCheckpoint,
} from "../checkpoint/derived-checkpoint.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { indexerTensors } from "../graph/distill/indexer-gradient.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { IndexerParameters } from "../runtime/distill/gradient-session.ts";
import { encodeFloats } from "./stored-floats.ts";

/** Files of a checkpoint folder that go along as they are, where they are there. */
const companions = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "model.safetensors.index.json",
];

/**
 * @param config text of the new config.json
 * @param trained parameters by layer
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
      if (scale !== undefined) throw new InputError(`Tensor "${name}" is quantised`);
      replaced.set(name, () => [encodeFloats(parameters[tensor], dtype)]);
    }
  }
  const byFile = new Map<string, DerivedTensor[]>();
  for (const { name, dtype, shape, file, offset, length } of checkpoint.tensors.values()) {
    const data = replaced.get(name) ?? { path: join(model.path, file), offset, length };
    byFile.set(file, [...(byFile.get(file) ?? []), { name, dtype, shape, data }]);
  }
  const shards: DerivedShard[] = checkpoint.files.map((file) => {
    const tensors = byFile.get(file) ?? [];
    const changed = tensors.some(({ name }) => replaced.has(name));
    return changed ? { file, tensors, metadata: { format: "pt" } } : { file, source: join(model.path, file) };
  });
  const kept = await Promise.all(
    companions.map(async (name) => ({ name, content: await readFile(join(model.path, name)).catch(() => undefined) })),
  );
  const small = kept.flatMap(({ name, content }) => (content === undefined ? [] : [{ name, content }]));
  return await writeDerivedCheckpoint(target, { shards, files: [...small, ...files] }, settings);
}
