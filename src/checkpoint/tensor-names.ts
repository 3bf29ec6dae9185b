/**
 * The names that transformers gives the tensors of a DSA model (`model.layers.0.self_attn.q_a_proj.weight`), whatever a
 * checkpoint calls them: composite models and bare ones have another prefix. The tensors themselves keep their names.
 */
import type { CheckpointTensor } from "./shards.ts";

const embedding = "embed_tokens.weight";

/** Tensors by transformers' names. Those of other parts of a composite model (vision) keep theirs. */
export function byModelName(tensors: ReadonlyMap<string, CheckpointTensor>): Map<string, CheckpointTensor> {
  const prefix = modelPrefix(tensors.keys());
  if (prefix === "model.") return new Map(tensors);
  const named = new Map<string, CheckpointTensor>();
  // "model.language_model." has its head at "model.lm_head." or "lm_head.", "language_model.model." at "language_model.lm_head.".
  const outer = prefix.replace(/(model|language_model)\.$/, "");
  const head = [`${outer}lm_head.`, `${prefix}lm_head.`].find((start) => tensors.has(`${start}weight`)) ?? "lm_head.";
  for (const [name, tensor] of tensors) {
    if (name.startsWith(head)) named.set(`lm_head.${name.slice(head.length)}`, tensor);
    else if (name.startsWith(prefix)) named.set(`model.${name.slice(prefix.length)}`, tensor);
    else named.set(name, tensor);
  }
  return named;
}

/** What stands before `embed_tokens` and `layers`; `model.` where that cannot be told. */
function modelPrefix(names: Iterable<string>): string {
  const prefixes: string[] = [];
  for (const name of names) {
    // Prediction layers have an embedding of their own.
    if (name.endsWith(embedding) && !name.includes("layers.")) prefixes.push(name.slice(0, -embedding.length));
  }
  const [only = "model.", ...others] = prefixes;
  return others.length === 0 && (only === "" || only.endsWith(".")) ? only : "model.";
}

/** Names of which a folder's layout is known by its tensors, where it is not the one of transformers. */
const layouts: readonly { sign: RegExp; words: string; hint: string }[] = [
  {
    sign: /^layers\.\d+\.attn\.w(q|kv)_/,
    words: "the names of DeepSeek's own inference code (layers.0.attn.wq_a)",
    hint: "take the Hugging Face release, whose names begin with model.layers",
  },
  {
    sign: /^(decoder\.layers\.|embedding\.word_embeddings)/,
    words: "the names of Megatron",
    hint: "convert it to the Hugging Face layout first",
  },
  { sign: /^blk\.\d+\./, words: "the names of GGUF", hint: "take the Hugging Face release" },
  {
    sign: /^base_model\.model\.|\.lora_A\./,
    words: "the names of an adapter (LoRA)",
    hint: "merge it into its base model first (peft: merge_and_unload)",
  },
];

/** The layout that tensors are named after, where it is a known one that is not read. */
export function foreignLayout(names: Iterable<string>): { words: string; hint: string } | undefined {
  const all = [...names];
  return layouts.find(({ sign }) => all.some((name) => sign.test(name)));
}

/** The number of the layer that a tensor belongs to. */
export function layerOf(name: string): number | undefined {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  return layer === undefined ? undefined : Number(layer);
}
