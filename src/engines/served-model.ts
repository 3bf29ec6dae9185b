/**
 * What a serving engine sees of a model: enough of config.json to tell which layers have an indexer and what the config
 * itself says about sharing. Looser than the `checkpoint` room: engines serve models that indexcache cannot run.
 */
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { modelTypeOf } from "../checkpoint/architecture.ts";
import { largestSizes } from "../checkpoint/config-schema.ts";
import { sizeUpTo } from "../checkpoint/numbers.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { readText } from "../formats/text-file.ts";
import { checkShape, parseJson } from "../formats/validation.ts";
import { type IndexFields, indexFieldsSchema } from "./index-fields.ts";

/** `dsa`: an indexer on every backbone layer. `v4`: on those with compress ratio 4 only (C4A). */
export type IndexerFamily = "dsa" | "v4";

export interface ServedModel {
  /** Folder or config.json; undefined where only a count of layers is known. */
  path: string | undefined;
  name: string;
  /** undefined where only a count of layers is known. */
  modelType: string | undefined;
  family: IndexerFamily;
  /** Backbone layers; prediction layers (MTP) are not counted. */
  layers: number;
  /** `num_nextn_predict_layers`. */
  predictionLayers: number;
  /** Backbone layers that have an indexer, ascending. A pattern has one letter for each of them. */
  indexers: number[];
  /** What config.json says about sharing. */
  fields: IndexFields;
  /** F for each backbone layer whose indexer weights are in the checkpoint; undefined without a look at the weights. */
  shipped: string | undefined;
}

/** Compress ratio of a DeepSeek-V4 layer that selects tokens with an indexer. */
const INDEXED_RATIO = 4;

const families: Record<string, IndexerFamily> = {
  glm_moe_dsa: "dsa",
  deepseek_v32: "dsa",
  deepseek_v4: "v4",
};

const count = sizeUpTo(largestSizes.layers);

const servedConfigSchema = indexFieldsSchema.extend({
  model_type: z.string({ error: (issue) => (issue.input === undefined ? "is missing" : undefined) }),
  num_hidden_layers: count,
  num_nextn_predict_layers: z.int().min(0).max(largestSizes.layers).nullish(),
  compress_ratios: z.array(z.number()).nullish(),
});

/** A model of which nothing but its number of layers is known: each of them with an indexer. */
export function modelOfLayers(layers: number, modelType?: string): ServedModel {
  return {
    path: undefined,
    name: `a model of ${layers} layers`,
    modelType,
    family: "dsa",
    layers,
    predictionLayers: 0,
    indexers: Array.from({ length: layers }, (_, layer) => layer),
    fields: {},
    shipped: undefined,
  };
}

/** The path of the config that `path`, a checkpoint folder or a config.json, stands for. */
export async function configPath(path: string): Promise<string> {
  const found = await stat(path).catch((error: unknown) => {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new InputError(`Cannot read "${path}": ${describeSystemError(code)}`, {
      hint: "--model is a config.json or the folder of a checkpoint",
      cause: error,
    });
  });
  return found.isDirectory() ? join(path, "config.json") : path;
}

/**
 * Reads a model's config.json; of a folder also the names of its tensors, where it holds weights.
 * @throws InputError naming file and field, or where nothing is known of engines for this architecture
 */
export async function readServedModel(path: string): Promise<ServedModel> {
  const file = await configPath(path);
  const model = parseServedModel(await readConfigText(file), file);
  if (file === path) return model;
  const shipped = await shippedIndexers(path, model.layers);
  return shipped === undefined ? model : { ...model, shipped };
}

/** As `readServedModel`, for the text of a config.json. */
export function parseServedModel(text: string, file: string): ServedModel {
  const what = `"${file}"`;
  const json = parseJson(text, z.record(z.string(), z.unknown()), what);
  const raw = checkShape({ ...json, model_type: modelTypeOf(json) }, servedConfigSchema, what);
  const family = families[raw.model_type];
  if (family === undefined) {
    throw new InputError(
      `${what}: nothing is known here of how engines share indices of model_type "${raw.model_type}"; known are ${Object.keys(families).join(", ")}`,
    );
  }
  const layers = raw.num_hidden_layers;
  return {
    path: file,
    name: basename(dirname(resolve(file))),
    modelType: raw.model_type,
    family,
    layers,
    predictionLayers: raw.num_nextn_predict_layers ?? 0,
    indexers: indexersOf(family, layers, raw.compress_ratios ?? undefined, what),
    fields: indexFieldsSchema.parse(json),
    shipped: undefined,
  };
}

function indexersOf(family: IndexerFamily, layers: number, ratios: number[] | undefined, what: string): number[] {
  const all = Array.from({ length: layers }, (_, layer) => layer);
  if (family === "dsa") return all;
  if (ratios === undefined || ratios.length < layers) {
    throw new InputError(
      `${what}: compress_ratios has ${ratios?.length ?? 0} entries for ${layers} layers; it tells which layers have an indexer`,
    );
  }
  // Entries behind the backbone are of prediction layers.
  const indexers = all.filter((layer) => ratios[layer] === INDEXED_RATIO);
  if (indexers.length === 0)
    throw new InputError(`${what}: no layer has compress ratio ${INDEXED_RATIO}, so none has an indexer`);
  return indexers;
}

/** Which backbone layers own indexer weights; undefined for a folder without weights. */
async function shippedIndexers(folder: string, layers: number): Promise<string | undefined> {
  const holds = async (name: string): Promise<boolean> =>
    (await stat(join(folder, name)).catch(() => undefined)) !== undefined;
  if (!(await holds("model.safetensors.index.json")) && !(await holds("model.safetensors"))) return undefined;
  const { tensors } = await openTensors(folder);
  const owners = new Set<number>();
  for (const name of tensors.keys()) {
    const match = /^model\.layers\.(\d+)\.self_attn\.indexer\./.exec(name);
    if (match !== null) owners.add(Number(match[1]));
  }
  return Array.from({ length: layers }, (_, layer) => (owners.has(layer) ? "F" : "S")).join("");
}

async function readConfigText(file: string): Promise<string> {
  return readText(file, `"${file}"`, { hint: "--model is a config.json or the folder of a checkpoint" });
}
