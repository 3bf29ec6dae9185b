/**
 * A tokenizer whose ids can be told by heart: id = byte for 0-255 (byte-level BPE), 256 `<bos>`, 257 `<eos>`,
 * 258 `<|user|>`, 259 `<|assistant|>`, and one merge, 260 `th`.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

export const BOS = 256;
export const EOS = 257;

export interface ByteTokenizerOptions {
  /** The tokenizer itself adds BOS, as Llama's and DeepSeek's do. */
  addsBos?: boolean;
  config?: Record<string, unknown>;
  generation?: Record<string, unknown>;
  model?: Record<string, unknown>;
  template?: string;
}

/** Writes the tokenizer files of a model folder. */
export async function writeByteTokenizer(folder: string, options: ByteTokenizerOptions = {}): Promise<void> {
  await mkdir(folder, { recursive: true });
  const write = (name: string, content: unknown): Promise<void> =>
    writeFile(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  const special = ["<bos>", "<eos>", "<|user|>", "<|assistant|>"];
  await write("tokenizer.json", {
    version: "1.0",
    added_tokens: special.map((content, index) => ({
      id: 256 + index,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: options.addsBos
      ? {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "<bos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
          pair: [],
          special_tokens: { "<bos>": { id: "<bos>", ids: [BOS], tokens: ["<bos>"] } },
        }
      : null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: null,
      vocab: { ...Object.fromEntries(byteLetters().map((letter, byte) => [letter, byte])), th: 260 },
      merges: [["t", "h"]],
    },
  });
  await write("tokenizer_config.json", { bos_token: "<bos>", eos_token: { content: "<eos>" }, ...options.config });
  await write("config.json", options.model ?? {});
  if (options.generation !== undefined) await write("generation_config.json", options.generation);
  if (options.template !== undefined) await write("chat_template.jinja", options.template);
}

/** GPT-2's letters for bytes: the printable ones stand for themselves, the others follow from U+0100. */
function byteLetters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : next++);
  });
}
