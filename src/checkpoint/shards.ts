/** The tensors of a checkpoint folder: one `model.safetensors`, or shards under `model.safetensors.index.json`. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { isThere } from "../base/user-files.ts";
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
  /** Tensors that the index names and no file holds: the error that who needs one raises. */
  absent: ReadonlyMap<string, InputError>;
  /** What is not as it should be and does not matter, for people. */
  notes: readonly string[];
  places: WeightPlaces;
}

/** Says which shard holds which tensor. */
export const indexName = "model.safetensors.index.json";
const singleName = "model.safetensors";
const shardName = /^model-\d+-of-(\d+)\.safetensors$/;
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Finds every tensor of a checkpoint without reading its data. Shards are believed, and their index where two of them hold
 * a tensor: an entry of a tensor that is nowhere matters only to who needs that tensor (`absent`).
 * @param known the weight files, if they are known from another file than the index: that of an older export is missing
 * @throws InputError for a folder without weights, one whose files contradict each other, or a file name that leads out
 *   of the folder
 */
export async function openTensors(folder: string, known?: readonly string[]): Promise<CheckpointTensors> {
  const index = await readTextIfPresent(join(folder, indexName), `"${join(folder, indexName)}"`);
  if (index === undefined) return openFiles(folder, known ?? (await weightFiles(folder)));
  const weightMap = parseIndex(join(folder, indexName), index);
  const named = [...new Set(weightMap.values())].sort();
  // A link of a download cache whose file is gone has a name, and is not there.
  const names = await readdir(folder);
  const there = await Promise.all(names.map((name) => isThere(join(folder, name))));
  const present = new Set(names.filter((_, at) => there[at]));
  const found = named.filter((file) => present.has(file));
  if (named.includes(singleName) || !present.has(singleName)) {
    if (found.length === 0 && named.length > 0) throw missingShard(folder, named[0] as string, weightMap);
    return openFiles(folder, found, weightMap);
  }
  if (found.length > 0) {
    throw new InputError(
      `"${folder}" holds ${singleName} and ${indexName}, which names other files: transformers reads the one, vLLM the others`,
      { hint: "remove what does not belong to the model" },
    );
  }
  const single = await openFiles(folder, [singleName]);
  const notes = [`"${join(folder, indexName)}" names files that are not there; ${singleName} is read`];
  return { ...single, notes: [...single.notes, ...notes] };
}

/** The weight files of a folder without an index. */
async function weightFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder).catch((): string[] => []);
  if (entries.includes(singleName)) return [singleName];
  const shards = entries.filter((name) => shardName.test(name)).sort();
  const counts = new Set(shards.map((name) => Number(shardName.exec(name)?.[1])));
  if (counts.size === 1 && counts.has(shards.length)) return shards;
  if (shards.length > 0) {
    throw new InputError(
      `"${folder}" holds ${shards.length} of ${[...counts].join(" or ")} shards and no ${indexName}`,
      hint(folder),
    );
  }
  throw noWeights(folder, entries);
}

/** What a folder holds in the place of the weights that are read. */
const otherWeights: readonly { files: RegExp; words: string; hint: string }[] = [
  { files: /\.gguf$/, words: "GGUF, the format of llama.cpp", hint: "take the Hugging Face release in safetensors" },
  {
    files: /^(pytorch_model.*|consolidated.*)\.(bin|pth|pt)$|\.(bin|pth|pt)$/,
    words: "pickled PyTorch weights, which are not read: loading them can run code",
    hint: "save the model once more with transformers (save_pretrained), which writes safetensors",
  },
  {
    files: /^adapter_model\.|^adapters?\.safetensors$/,
    words: "an adapter without the model that it belongs to",
    hint: "merge it into its base model first (peft: merge_and_unload)",
  },
  {
    files: /^consolidated.*\.safetensors$|^model\d+-mp\d+\.safetensors$/,
    words: "weights in the layout of the makers' own inference code",
    hint: `take the Hugging Face release, with ${singleName} or ${indexName}`,
  },
  {
    files: /\.safetensors$/,
    words: "safetensors files of other names",
    hint: `transformers reads ${singleName}, or the files that ${indexName} names`,
  },
  { files: /\.(npz|h5|msgpack|ckpt|nemo|onnx)$/, words: "weights of another framework", hint: "convert them first" },
];

function noWeights(folder: string, entries: readonly string[]): InputError {
  const lacks = `"${folder}" holds no weights: neither ${singleName} nor ${indexName} is there`;
  for (const { files, words, hint: advice } of otherWeights) {
    const found = entries.filter((name) => files.test(name)).sort();
    const [first] = found;
    if (first === undefined) continue;
    const more = found.length === 1 ? "" : ` and ${found.length - 1} more`;
    return new InputError(`${lacks}; ${first}${more} is ${words}`, { hint: advice });
  }
  const alone = entries.includes("config.json") ? { hint: withoutWeights } : {};
  return new InputError(lacks, { ...alone, ...hint(folder) });
}

function missingShard(folder: string, file: string, weightMap: ReadonlyMap<string, string>): InputError {
  const tensor = [...weightMap].find(([, shard]) => shard === file)?.[0];
  return new InputError(
    `Shard "${join(folder, file)}" is missing; ${indexName} says that it holds tensor "${tensor}"`,
    hint(folder),
  );
}

/** The same tensors, with files called by their names in the folder instead of by where links lead. */
export function withOwnNames(checkpoint: CheckpointTensors): CheckpointTensors {
  const tensors = [...checkpoint.tensors].map(
    ([name, tensor]) => [name, { ...tensor, location: tensor.file }] as const,
  );
  return { ...checkpoint, tensors: new Map(tensors) };
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
 * @param weightMap where the tensors should be
 */
async function openFiles(
  folder: string,
  files: readonly string[],
  weightMap: ReadonlyMap<string, string> = new Map(),
): Promise<CheckpointTensors> {
  const places = await locateWeights(folder, files);
  const tensors = new Map<string, CheckpointTensor>();
  for (const file of files) {
    const location = places.files.get(file)?.location ?? file;
    for (const tensor of (await readSafetensorsHeader(join(folder, file))).values()) {
      const other = tensors.get(tensor.name)?.file;
      const wanted = weightMap.get(tensor.name);
      if (other !== undefined && wanted !== other && wanted !== file) {
        throw new InputError(`"${folder}" holds tensor "${tensor.name}" twice, in ${other} and ${file}`);
      }
      if (other === undefined || wanted === file) tensors.set(tensor.name, { ...tensor, file, location });
    }
  }
  const absent = absentTensors(folder, files, tensors, weightMap);
  const notes: string[] = [];
  if (absent.size > 0) {
    const [first] = absent.keys();
    const count = absent.size === 1 ? "a tensor" : `${absent.size} tensors`;
    notes.push(
      `"${join(folder, indexName)}" names ${count} that no file holds ("${first}"); the model does not use it`,
    );
  }
  const bytes = [...places.files.values()].reduce((total, place) => total + place.bytes, 0);
  return { folder, files: [...files], bytes, tensors, absent, notes, places };
}

/** Tensors that the index names and no file holds, and what to say to who needs them. */
function absentTensors(
  folder: string,
  files: readonly string[],
  tensors: ReadonlyMap<string, CheckpointTensor>,
  weightMap: ReadonlyMap<string, string>,
): Map<string, InputError> {
  const absent = new Map<string, InputError>();
  for (const [name, file] of weightMap) {
    if (tensors.has(name)) continue;
    const words = `"${join(folder, file)}" does not hold tensor "${name}", which ${indexName} promises there`;
    absent.set(
      name,
      files.includes(file)
        ? new InputError(words)
        : new InputError(
            `Shard "${join(folder, file)}" is missing; ${indexName} says that it holds tensor "${name}"`,
            hint(folder),
          ),
    );
  }
  return absent;
}

const withoutWeights =
  "config.json alone is enough for inspect, pattern, search --dry-run and distill --dry-run; hf download OWNER/NAME --local-dir FOLDER fetches weights";

function hint(folder: string): { hint?: string } {
  const words = downloadHint(folder);
  return words === undefined ? {} : { hint: words };
}
