/**
 * Which of the supported architectures a `config.json` describes. `model_type` alone does not decide: DeepSeek-V3.2
 * checkpoints carry `deepseek_v3` for transformers 4, and engines go by `architectures` and `index_topk`.
 */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { architectures, type ModelType } from "../architectures/architectures.ts";
import { largestSizes } from "./config-schema.ts";

const supportedModelTypes = Object.keys(architectures) as ModelType[];

export interface IdentifiedConfig {
  modelType: ModelType;
  /** The fields of the language model: those of `text_config` where the config has one inside. */
  fields: Record<string, unknown>;
  /** What was concluded rather than read, for people. */
  notes: string[];
}

/** Fields that a composite config holds beside its `text_config` and that concern the language model. */
const outerFields = [
  "architectures",
  "tie_word_embeddings",
  "quantization_config",
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
];

/**
 * The type by which a config is known: a supported one where any evidence says so, else what `model_type` says.
 * undefined for a config that says nothing.
 */
export function modelTypeOf(config: Readonly<Record<string, unknown>>): string | undefined {
  const fields = languageModel(config);
  const stated = typeof fields.model_type === "string" ? fields.model_type : undefined;
  if (stated === undefined) return supportedClasses(fields)[0]?.type;
  return stated === "deepseek_v3" && isSparseV3(fields) ? "deepseek_v32" : stated;
}

/**
 * @param path for messages
 * @throws InputError for a model that is not supported, and where `model_type` and `architectures` contradict each other
 */
export function identifyConfig(json: unknown, path: string): IdentifiedConfig {
  const object = z.record(z.string(), z.unknown()).safeParse(json);
  if (!object.success) throw new InputError(`"${path}" is not a JSON object`);
  const fields = languageModel(object.data);
  const notes = fields === object.data ? [] : [`"${path}": the language model is the one of text_config`];
  const stated = fields.model_type;
  const named = modelTypeOf(object.data);
  if (named === undefined) throw new InputError(`"${path}" has no model_type`);
  const modelType = supportedModelTypes.find((type) => type === named);
  const classes = supportedClasses(fields);
  if (modelType === undefined) {
    const facts = describeUnreadLayers(fields);
    const because = facts.length === 0 ? "" : `: ${facts.join(", and ")}`;
    throw new InputError(
      `"${path}": model_type "${named}" is not supported${because}; supported are ${supportedModelTypes.join(", ")}`,
      hintFor(named, classes[0]),
    );
  }
  const other = classes.find(({ type }) => type !== modelType);
  if (other !== undefined) {
    throw new InputError(
      `"${path}" contradicts itself: model_type is "${stated ?? named}", architectures name ${other.name}`,
      { hint: `set model_type to "${other.type}", or correct architectures` },
    );
  }
  if (stated !== modelType) {
    const from = [classes[0]?.name, typeof fields.index_topk === "number" ? "index_topk" : undefined].filter(Boolean);
    const words = stated === undefined ? "no model_type" : `model_type "${String(stated)}"`;
    notes.push(`"${path}" has ${words}; read as ${modelType}, going by ${from.join(" and ")}`);
  }
  return { modelType, fields, notes };
}

function hintFor(named: string, found: { type: ModelType } | undefined): { hint?: string } {
  if (found !== undefined) return { hint: `if architectures are right, set model_type to "${found.type}"` };
  if (named === "deepseek_v3") return { hint: "DeepSeek-V3 has no indexers; a config of V3.2 has index_topk" };
  return {};
}

/** vLLM's test of a V3.2 checkpoint that calls itself V3: it has `index_topk`, or names the class. */
function isSparseV3(fields: Readonly<Record<string, unknown>>): boolean {
  const classes = supportedClasses(fields);
  if (classes.some(({ type }) => type !== "deepseek_v32")) return false;
  return classes.length > 0 || typeof fields.index_topk === "number";
}

function supportedClasses(fields: Readonly<Record<string, unknown>>): { name: string; type: ModelType }[] {
  const names = Array.isArray(fields.architectures) ? fields.architectures : [];
  return names.flatMap((name) => {
    const type = supportedModelTypes.find(
      (type) => typeof name === "string" && name.startsWith(architectures[type].className),
    );
    return type === undefined ? [] : [{ name: String(name), type }];
  });
}

function isKnown({ model_type: stated }: Readonly<Record<string, unknown>>): boolean {
  return stated === "deepseek_v3" || supportedModelTypes.some((type) => type === stated);
}

/** The fields of the language model of a composite config (vision, audio); the config itself where it is none. */
function languageModel(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const inner = config.text_config;
  if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return config;
  // A config that describes a language model that is known on the outside as well needs no look inside.
  if (config.num_hidden_layers !== undefined && isKnown(config)) return config;
  const kept = outerFields.filter((field) => config[field] !== undefined).map((field) => [field, config[field]]);
  const fields: Record<string, unknown> = { ...Object.fromEntries(kept), ...inner };
  // The class that `architectures` names outside is the composite model's.
  if (!Object.hasOwn(inner, "architectures")) delete fields.architectures;
  return fields;
}

/** Names in `layer_types` of layers with an indexer, today's and earlier ones. */
const indexedTypes = ["indexed_attention", "deepseek_sparse_attention", "qwen_sparse_attention"] as const;

const layersSchema = z.object({
  layer_types: z.array(z.string()).max(largestSizes.layers).nullish().catch(undefined),
  kv_source_layers: z.array(z.number()).max(largestSizes.layers).nullish().catch(undefined),
  num_attention_heads: z.number().optional().catch(undefined),
  num_key_value_heads: z.number().nullish().catch(undefined),
  kv_lora_rank: z.number().nullish().catch(undefined),
});

/**
 * What keeps a model that is not supported from being read, as far as its config.json says it: `10 of its 40 layers have an
 * indexer`, and so on. Empty where nothing is known. Names are transformers'.
 */
function describeUnreadLayers(fields: Readonly<Record<string, unknown>>): string[] {
  const { layer_types: types, kv_source_layers: sources, ...heads } = layersSchema.parse(fields);
  const facts: string[] = [];
  const indexed = types?.filter((type) => indexedTypes.some((known) => known === type)).length ?? 0;
  if (types != null && indexed < types.length)
    facts.push(`${indexed === 0 ? "none" : indexed} of its ${types.length} layers have an indexer`);
  const lent = sources?.filter((source, layer) => source !== layer).length ?? 0;
  if (lent > 0) facts.push(`${lent} layers read keys and values of another layer (kv_source_layers)`);
  const { num_attention_heads: queries, num_key_value_heads: keys, kv_lora_rank: latents } = heads;
  if (latents == null && keys != null && queries !== undefined && keys < queries)
    facts.push(`attention reads ${keys} heads of keys and values (GQA) instead of latents (MLA)`);
  return facts;
}
