/**
 * What layers of a model that is not supported do otherwise, as far as its config.json says it: which of them have an
 * indexer, how attention reads keys and values, and whose these are. Names are transformers'.
 */
import { z } from "zod";
import { largestSizes } from "./config-schema.ts";

/** Names in `layer_types` of layers with an indexer, today's and earlier ones. */
const indexedTypes = ["indexed_attention", "deepseek_sparse_attention", "qwen_sparse_attention"] as const;

const layersSchema = z.object({
  layer_types: z.array(z.string()).max(largestSizes.layers).nullish().catch(undefined),
  kv_source_layers: z.array(z.number()).max(largestSizes.layers).nullish().catch(undefined),
  num_attention_heads: z.number().optional().catch(undefined),
  num_key_value_heads: z.number().nullish().catch(undefined),
  kv_lora_rank: z.number().nullish().catch(undefined),
});

/** `10 of its 40 layers have an indexer`, and so on: what keeps the model from being read. Empty where nothing is known. */
export function describeUnreadLayers(fields: Readonly<Record<string, unknown>>): string[] {
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
