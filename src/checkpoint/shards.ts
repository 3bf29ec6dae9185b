/** The tensors of a checkpoint folder: one `model.safetensors`, or shards under `model.safetensors.index.json`. */
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { readTextIfPresent } from "../formats/text-file.ts";
import { readSafetensorsHeader, type StoredTensor } from "./safetensors.ts";

/** A tensor and the file of the checkpoint folder that holds it. */
export interface CheckpointTensor extends StoredTensor {
  /** File name inside the folder. */
  file: string;
}

export interface CheckpointTensors {
  folder: string;
  /** Names of the weight files, in order. */
  files: string[];
  bytes: number;
  tensors: Map<string, CheckpointTensor>;
}

const indexName = "model.safetensors.index.json";
const singleName = "model.safetensors";
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Finds every tensor of a checkpoint without reading its data.
 * @throws InputError for a folder without weights, a shard or tensor that the index names and that is not there, or a
 *   file name that leads out of the folder
 */
export async function openTensors(folder: string): Promise<CheckpointTensors> {
  const index = await readTextIfPresent(join(folder, indexName), `"${join(folder, indexName)}"`);
  if (index === undefined) {
    const path = join(folder, singleName);
    await access(path).catch(() => {
      throw new InputError(`"${folder}" holds no weights: neither ${singleName} nor ${indexName} is there`);
    });
    const stored = await readSafetensorsHeader(path);
    const tensors = new Map([...stored].map(([name, tensor]) => [name, { ...tensor, file: singleName }]));
    return { folder, files: [singleName], bytes: (await stat(path)).size, tensors };
  }
  return openShards(folder, parseIndex(join(folder, indexName), index));
}

function parseIndex(path: string, text: string): Map<string, string> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`"${path}" is not JSON`, { cause: error });
  }
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) throw new InputError(`"${path}" has no weight_map from tensor names to file names`);
  for (const [name, file] of Object.entries(parsed.data.weight_map)) {
    // A shard is a plain file of this folder; anything else could make the runtime read a file of the host.
    if (!/^[\w][\w.+-]*\.safetensors$/.test(file)) {
      throw new InputError(`"${path}" maps tensor "${name}" to "${file}", which is no safetensors file of this folder`);
    }
  }
  return new Map(Object.entries(parsed.data.weight_map));
}

async function openShards(folder: string, weightMap: Map<string, string>): Promise<CheckpointTensors> {
  const files = [...new Set(weightMap.values())].sort();
  const headers = new Map<string, Map<string, StoredTensor>>();
  let bytes = 0;
  for (const file of files) {
    const path = join(folder, file);
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) {
      const missing = [...weightMap].find(([, shard]) => shard === file)?.[0];
      throw new InputError(`Shard "${path}" is missing; ${indexName} says that it holds tensor "${missing}"`);
    }
    bytes += found.size;
    headers.set(file, await readSafetensorsHeader(path));
  }
  const tensors = new Map<string, CheckpointTensor>();
  for (const [name, file] of weightMap) {
    const tensor = headers.get(file)?.get(name);
    if (tensor === undefined) {
      throw new InputError(`"${join(folder, file)}" does not hold tensor "${name}", which ${indexName} promises there`);
    }
    tensors.set(name, { ...tensor, file });
  }
  return { folder, files, bytes, tensors };
}
