/**
 * What a serving engine sees of a model: enough of config.json to tell which layers have an indexer and what the config
 * itself says about sharing. Looser than the `checkpoint` room: engines serve models that indexcache cannot run.
 */
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { quoted } from "../base/quoted.ts";
import { largestSizes } from "../checkpoint/config/config-schema.ts";
import { modelTypeOf } from "../checkpoint/config/identified-config.ts";
import { sizeUpTo } from "../checkpoint/config/numbers.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { readText } from "../formats/text-file.ts";
import { checkShape, parseJson } from "../formats/validation.ts";
import { type IndexFields, indexFieldsSchema } from "./index-fields.ts";

/** `dsa`: an indexer on every backbone layer. `v4`: on those with compress ratio 4 only (C4A). */
type IndexerFamily = "dsa" | "v4";

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
  /** Nothing says how many layers there are: the pattern's own length stands in for it. */
  layersAssumed?: true;
}

/** Compress ratio of a DeepSeek-V4 layer that selects tokens with an indexer. */
const INDEXED_RATIO = 4;

const families: Readonly<Record<string, IndexerFamily | undefined>> = {
  glm_moe_dsa: "dsa",
  deepseek_v32: "dsa",
  hy_v4: "dsa",
  deepseek_v4: "v4",
};

/** Models that share indices by fields of their own, or that cannot: what is known, for the message that refuses them. */
const otherwise: Readonly<Record<string, string | undefined>> = {
  glm5_next:
    "GLM-5.3-Flash: its KDA layers hand no indices on, so that a Shared layer after one is a ValueError in transformers 5.24, and vLLM 0.33 skips no indexer there",
  mistral_large4:
    "Mistral-Large-4 shares keys and values as well (kv_source_layers), and a layer that reads another one's cache has to be Shared in indexer_types",
  deepseek_v41:
    "DeepSeek-V4.1 names the layers that select tokens in index_source_layer_ids, beside kv_source_layer_ids",
  longcat_flash:
    "LongCat shares by cli_factor: a layer selects tokens where its number is a multiple of it, and SGLang looks at nothing else",
  minimax_m3:
    "MiniMax-M3 shares by index_topk_freq inside text_config in vLLM, and by the environment variable SGLANG_MINIMAX_M3_INDEX_TOPK_FREQ in SGLang; neither takes a pattern",
  axk2: "A.X-K2: no release of vLLM or SGLang up to 0.33 and 0.5.23 serves it, and transformers 5.24 runs every indexer; `run` and `serve` of this tool take patterns for it",
  hy_v4_vl: "Hy4-VL has indexer_types inside text_config, where engines' overrides were not followed",
};

/** Does any engine run patterns on models of this model_type? */
export function isServed(modelType: string): boolean {
  return families[modelType.replace(/_text$/, "")] !== undefined;
}

const count = sizeUpTo(largestSizes.layers);

const identitySchema = z.object({
  model_type: z.string({ error: (issue) => (issue.input === undefined ? "is missing" : undefined) }),
});

const servedConfigSchema = indexFieldsSchema.extend({
  num_hidden_layers: count,
  num_nextn_predict_layers: z.int().min(0).max(largestSizes.layers).nullish(),
  compress_ratios: z.array(z.number()).nullish(),
});

function unknownFamily(modelType: string): string {
  const known = otherwise[modelType.replace(/_text$/, "")];
  return known === undefined
    ? `nothing is known here of how engines share indices of model_type ${quoted(modelType)}; known are ${Object.keys(families).join(", ")}`
    : `no pattern can be written for model_type ${modelType}. ${known}`;
}

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
  const { model_type: modelType } = checkShape({ model_type: modelTypeOf(json) }, identitySchema, what);
  const family = families[modelType];
  if (family === undefined) throw new InputError(`${what}: ${unknownFamily(modelType)}`);
  const raw = checkShape(json, servedConfigSchema, what);
  const layers = raw.num_hidden_layers;
  return {
    path: file,
    name: basename(dirname(resolve(file))),
    modelType,
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
  // Entries after the backbone's are of prediction layers.
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
  const owners = indexerLayers(tensors.keys());
  return Array.from({ length: layers }, (_, layer) => (owners.has(layer) ? "F" : "S")).join("");
}

/** The backbone or prediction layer whose indexer a tensor belongs to; scales of quantized weights included. */
export function indexerLayer(name: string): number | undefined {
  const layer = /^model\.layers\.(\d{1,6})\.self_attn\.indexer\./.exec(name)?.[1];
  return layer === undefined ? undefined : Number(layer);
}

/** Layers that own some of these tensors of indexers. */
export function indexerLayers(names: Iterable<string>): Set<number> {
  return new Set([...names].flatMap((name) => indexerLayer(name) ?? []));
}

async function readConfigText(file: string): Promise<string> {
  return readText(file, `"${file}"`, { hint: "--model is a config.json or the folder of a checkpoint" });
}
