/**
 * `indexer_types` as transformers' config classes fill them in while they are built. Engines that load a config through
 * transformers see them as if config.json had them, and overrides come afterwards.
 */
import type { Schedule } from "./dialect.ts";
import { type IndexFields, indexerTypes, lettersOfTypes } from "./index-fields.ts";
import { frequencyRule, typesRule } from "./rules.ts";
import type { ServedModel } from "./served-model.ts";

/** The model types whose config class has the field. */
export function derivesTypes(modelType: string | undefined): boolean {
  return modelType === "glm_moe_dsa" || modelType === "hy_v4";
}

/**
 * What the config class makes of the fields that it is built from.
 * `GlmMoeDsaConfig`: types, else the pattern, else frequency and offset. `HYV4Config`: types, else layer 0 and every fourth after it.
 * Source: transformers 5.24.0, models/glm_moe_dsa and models/hy_v4.
 */
export function builtSchedule(fields: IndexFields, { modelType, layers }: ServedModel): Schedule {
  if (fields.indexer_types != null) return typesRule(layers, fields.indexer_types);
  if (modelType === "hy_v4") return frequencyRule(layers, 4, 1);
  const pattern = fields.index_topk_pattern;
  if (pattern == null) {
    return frequencyRule(layers, Math.max(fields.index_topk_freq ?? 1, 1), (fields.index_skip_topk_offset ?? 2) - 1);
  }
  if (typeof pattern !== "string") return typesRule(layers, pattern);
  const foreign = [...pattern].find((letter) => letter !== "F" && letter !== "S");
  if (foreign !== undefined) return { failure: `KeyError: '${foreign}' in index_topk_pattern` };
  if (pattern.length < layers) {
    return { failure: `IndexError: index_topk_pattern ends before layer ${pattern.length}` };
  }
  return { letters: pattern.slice(0, layers) };
}

/** The config that an engine has in hand before overrides: config.json with the types that its class derives. */
export function builtFields(model: ServedModel): IndexFields | { failure: string } {
  const { fields, modelType } = model;
  if (!derivesTypes(modelType) || fields.indexer_types != null) return fields;
  const schedule = builtSchedule(fields, model);
  return "failure" in schedule ? schedule : { ...fields, indexer_types: indexerTypes(schedule.letters) };
}

/** The letters that the model's own config asks for: those of its training; undefined where it says nothing. */
export function nativeLetters(model: ServedModel): string | undefined {
  const { fields, modelType } = model;
  if (derivesTypes(modelType)) {
    const schedule = builtSchedule(fields, model);
    return "letters" in schedule ? schedule.letters : undefined;
  }
  return fields.indexer_types == null ? undefined : lettersOfTypes(fields.indexer_types);
}

/**
 * Does the checkpoint hold the indexer of this layer? By its weights where they were looked at, else by its config: a
 * layer that was trained Shared has none.
 * @returns undefined where neither is known
 */
export function shipsIndexer(layer: number, model: ServedModel): boolean | undefined {
  if (model.shipped !== undefined) return model.shipped[layer] === "F";
  if (model.path === undefined) return undefined;
  return (nativeLetters(model) ?? "")[layer] !== "S";
}
