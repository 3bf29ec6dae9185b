/** The tensors of a checkpoint folder: one `model.safetensors`, or shards under `model.safetensors.index.json`. */
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { readTextIfPresent } from "../formats/text-file.ts";
import { downloadHint } from "./hub-cache.ts";
import { readSafetensorsHeader, type StoredTensor } from "./safetensors.ts";
import { locateWeights, type WeightPlaces } from "./weight-places.ts";

/** A tensor and the file of the checkpoint folder that holds it. */
export interface CheckpointTensor extends StoredTensor {
  /** File name inside the folder. */
  file: string;
  /** Where that file really lies, as a path below the folder of `places`. */
  location: string;
}

export interface CheckpointTensors {
  folder: string;
  /** Names of the weight files, in order. */
  files: string[];
  bytes: number;
  tensors: Map<string, CheckpointTensor>;
  places: WeightPlaces;
}

/** Says which shard holds which tensor. */
export const indexName = "model.safetensors.index.json";
const singleName = "model.safetensors";
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Finds every tensor of a checkpoint without reading its data.
 * @param known the weight files, where another file than the index tells of them: that of an older export is missing
 * @throws InputError for a folder without weights, a shard or tensor that the index names and that is not there, or a
 *   file name that leads out of the folder
 */
export async function openTensors(folder: string, known?: readonly string[]): Promise<CheckpointTensors> {
  const index = await readTextIfPresent(join(folder, indexName), `"${join(folder, indexName)}"`);
  if (index === undefined && known !== undefined) return openFiles(folder, known);
  if (index === undefined) {
    await access(join(folder, singleName)).catch(() => {
      throw new InputError(
        `"${folder}" holds no weights: neither ${singleName} nor ${indexName} is there`,
        hint(folder),
      );
    });
    return openFiles(folder, [singleName]);
  }
  const weightMap = parseIndex(join(folder, indexName), index);
  return openFiles(folder, [...new Set(weightMap.values())].sort(), weightMap);
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

/**
 * Reads the headers of these files.
 * @param weightMap where the tensors are; all that the files hold where absent
 */
async function openFiles(
  folder: string,
  files: readonly string[],
  weightMap?: ReadonlyMap<string, string>,
): Promise<CheckpointTensors> {
  for (const file of weightMap === undefined ? [] : files) {
    if ((await stat(join(folder, file)).catch(() => undefined)) !== undefined) continue;
    const missing = [...(weightMap ?? [])].find(([, shard]) => shard === file)?.[0];
    const message = `Shard "${join(folder, file)}" is missing; ${indexName} says that it holds tensor "${missing}"`;
    throw new InputError(message, hint(folder));
  }
  const places = await locateWeights(folder, files);
  const stored: [string, StoredTensor][] = [];
  for (const file of files) {
    for (const tensor of (await readSafetensorsHeader(join(folder, file))).values()) stored.push([file, tensor]);
  }
  const tensors = new Map<string, CheckpointTensor>();
  for (const [file, tensor] of stored) {
    if (weightMap !== undefined && weightMap.get(tensor.name) !== file) continue;
    const other = tensors.get(tensor.name)?.file;
    if (other !== undefined)
      throw new InputError(`"${folder}" holds tensor "${tensor.name}" twice, in ${other} and ${file}`);
    tensors.set(tensor.name, { ...tensor, file, location: places.files.get(file)?.location ?? file });
  }
  for (const [name, file] of weightMap ?? []) {
    if (tensors.has(name)) continue;
    throw new InputError(`"${join(folder, file)}" does not hold tensor "${name}", which ${indexName} promises there`);
  }
  const bytes = [...places.files.values()].reduce((total, place) => total + place.bytes, 0);
  return { folder, files: [...files], bytes, tensors, places };
}

function hint(folder: string): { hint?: string } {
  const words = downloadHint(folder);
  return words === undefined ? {} : { hint: words };
}
