/**
 * The fields of a model's config.json that say which layers share indices. Every engine reads some of them, in an order
 * and with defaults of its own; the dialects say which.
 */
import { z } from "zod";

export const indexFieldsSchema = z.object({
  use_index_cache: z.boolean().nullish(),
  index_topk_pattern: z.union([z.string(), z.array(z.string())]).nullish(),
  index_topk_freq: z.int().nullish(),
  index_skip_topk_offset: z.int().nullish(),
  indexer_types: z.array(z.string()).nullish(),
  /** LongCat's spelling, which SGLang reads before the pattern: every so many layers one indexes. */
  cli_factor: z.int().nullish(),
});

export type IndexFields = z.infer<typeof indexFieldsSchema>;

export const indexFieldNames = Object.keys(indexFieldsSchema.shape) as (keyof IndexFields)[];

/** Does the object say anything about sharing? `use_index_cache` alone does not. */
export function saysSharing(fields: IndexFields): boolean {
  return fields.index_topk_pattern != null || fields.indexer_types != null || fields.index_topk_freq != null;
}

/** `indexer_types` of a pattern, as Hugging Face configs list it. */
export function indexerTypes(pattern: string): string[] {
  return [...pattern].map((letter) => (letter === "S" ? "shared" : "full"));
}

/** Every field that some engine reads of a pattern: see docs/engines.md. */
export function sharingFields(pattern: string) {
  return { use_index_cache: true, index_topk_pattern: pattern, indexer_types: indexerTypes(pattern) };
}

/** F/S letters of a list such as `indexer_types`; undefined where an entry is neither "full" nor "shared". */
export function lettersOfTypes(types: readonly string[]): string | undefined {
  const letters = types.map((type) => ({ full: "F", shared: "S" })[type]);
  return letters.some((letter) => letter === undefined) ? undefined : letters.join("");
}
