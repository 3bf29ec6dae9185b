/** Fields of `config.json` that mean the same and say different things: one of them counts, the others are reported. */
import { InputError } from "../../base/errors.ts";
import { type Pattern, parsePattern, requireLayers } from "../../pattern/pattern.ts";
import { DEFAULT_FREQUENCY_OFFSET, frequencyPattern } from "../../pattern/schedule.ts";
import type { RawConfig } from "./config-schema.ts";
import { hasTwoRopes, ropeFieldsOf } from "./rope-parameters.ts";

type PatternField = "indexer_types" | "index_topk_pattern" | "index_topk_freq";

/**
 * What one field says of the layers; undefined if it is absent. Entries past the last layer are of prediction layers.
 * @throws InputError for a field that no model can have
 */
function patternBy(field: PatternField, raw: RawConfig, path: string): Pattern | undefined {
  const layers = raw.num_hidden_layers;
  if (field === "index_topk_freq") {
    const frequency = Math.max(raw.index_topk_freq ?? 1, 1);
    if (frequency === 1) return undefined;
    const offset = raw.index_skip_topk_offset ?? DEFAULT_FREQUENCY_OFFSET;
    if (offset < 1) {
      throw new InputError(
        `"${path}": index_skip_topk_offset is ${offset}, which makes layer 0 Shared: it must be 1 or more`,
      );
    }
    return frequencyPattern(layers, frequency, offset);
  }
  const listed = raw[field];
  if (listed == null) return undefined;
  const letters = typeof listed === "string" ? listed : listed.map((type) => (type === "full" ? "F" : "S")).join("");
  const where = `"${path}": ${field}`;
  return requireLayers(parsePattern(letters.slice(0, layers), where), layers, where);
}

const patternFields: readonly PatternField[] = ["indexer_types", "index_topk_pattern", "index_topk_freq"];

/**
 * The model's own pattern, in transformers' order: `indexer_types`, then `index_topk_pattern`, then frequency and offset.
 * Serving engines share indices of DeepSeek-V3.2 by the same fields.
 */
export function ownPattern(raw: RawConfig, path: string): Pattern {
  for (const field of patternFields) {
    const pattern = patternBy(field, raw, path);
    if (pattern !== undefined) return pattern;
  }
  return frequencyPattern(raw.num_hidden_layers, 1, DEFAULT_FREQUENCY_OFFSET);
}

/** A sentence for each field that says something else than what is used in its place. */
export function describeContradictions(raw: RawConfig, path: string): string[] {
  const notes = sharingContradictions(raw, path);
  if (hasTwoRopes(raw))
    notes.push("rope_scaling and rope_parameters differ; rope_scaling is used, as transformers does");
  const { rope_theta: inner } = ropeFieldsOf(raw);
  if (raw.rope_theta != null && inner != null && raw.rope_theta !== inner) {
    notes.push(
      `rope_theta is ${raw.rope_theta}, and ${inner} inside the RoPE parameters; that is used, as transformers does`,
    );
  }
  const dense = raw.mlp_layer_types?.indexOf("sparse");
  if (dense !== undefined && raw.first_k_dense_replace !== undefined) {
    const count = dense === -1 ? raw.num_hidden_layers : dense;
    if (count !== raw.first_k_dense_replace) {
      notes.push(
        `first_k_dense_replace is ${raw.first_k_dense_replace}, and mlp_layer_types begins with ${count} dense layers; that is used, as transformers does, and vLLM goes by the other`,
      );
    }
  }
  return notes.map((note) => `"${path}": ${note}`);
}

/** Two lists of layers that differ. A frequency beside a list is no contradiction: it counts where there is no list. */
function sharingContradictions(raw: RawConfig, path: string): string[] {
  if (raw.indexer_types == null || raw.index_topk_pattern == null) return [];
  const letters = ownPattern(raw, path);
  if (!saysOtherwise("index_topk_pattern", letters, raw, path)) return [];
  return [
    `index_topk_pattern and indexer_types differ; indexer_types is used (${letters}), as transformers does, and engines may go by the other`,
  ];
}

/** A field that is not used may be malformed, too: then it says something else. */
function saysOtherwise(field: PatternField, letters: string, raw: RawConfig, path: string): boolean {
  try {
    const pattern = patternBy(field, raw, path);
    return pattern !== undefined && pattern !== letters;
  } catch (error) {
    if (error instanceof InputError) return true;
    throw error;
  }
}
