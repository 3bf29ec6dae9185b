/**
 * The tokenizer of a model folder: text to ids and back, the ids that end a text, and the chat template.
 * A prompt or a document begins with exactly one BOS wherever the model has one: none costs quality without a message,
 * and two is what a template that writes BOS makes with a tokenizer that adds it.
 */
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { readTextIfPresent } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import { TokenizerFailure, TokenizerOverrun, type TokenizerStart, TokenizerThread } from "./tokenizer-thread.ts";

const tokenText = z
  .union([z.string(), z.object({ content: z.string() })])
  .transform((token) => (typeof token === "string" ? token : token.content));
const ids = z
  .union([z.int().min(0), z.array(z.int().min(0))])
  .transform((value) => (typeof value === "number" ? [value] : value));

const tokenizerSchema = z.looseObject({
  model: z.looseObject({ vocab: z.union([z.record(z.string(), z.int().min(0)), z.array(z.unknown())]) }),
  added_tokens: z.array(z.looseObject({ id: z.int().min(0), content: z.string() })).optional(),
});

const tokenizerConfigSchema = z.looseObject({
  bos_token: tokenText.nullish(),
  eos_token: tokenText.nullish(),
  add_bos_token: z.boolean().nullish(),
  clean_up_tokenization_spaces: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))]).nullish(),
});

/** The fields that `generation_config.json` and `config.json` share; the former wins. */
const generationSchema = z.looseObject({ bos_token_id: ids.nullish(), eos_token_id: ids.nullish() });

export interface ChatMessage {
  role: string;
  content: string;
}

/** Turns ids into text one at a time. Text is held back while its last character may still be incomplete. */
export interface Detokenizer {
  /** The text that this id completes; empty where it only begins a character or is a special token. */
  push(id: number): string;
  /** What is still held back; an incomplete character becomes U+FFFD. */
  end(): string;
}

export class Tokenizer {
  /** The id that every document begins with; undefined for a model without one. */
  readonly bosId: number | undefined;
  /** Any of these ends a text. */
  readonly eosIds: readonly number[];
  /** The checkpoint's Jinja template; undefined for a model without one. */
  readonly chatTemplate: string | undefined;
  /** SHA-256 of the content of tokenizer.json. */
  readonly hash: string;
  readonly #thread: TokenizerThread;
  readonly #start: Omit<TokenizerStart, "signal">;
  /** All that share long texts, `#thread` first; undefined before the first of them. */
  #crew: TokenizerThread[] | undefined;
  /** Path of tokenizer.json, for messages. */
  readonly #path: string;
  /** "a ." becomes "a.": only where the checkpoint asks for it, as in transformers 5. */
  readonly #cleansBlanks: boolean;
  readonly #specialTexts: { bos_token: string; eos_token: string };

  private constructor(thread: TokenizerThread, parts: ModelFiles) {
    this.#thread = thread;
    this.#start = { tokenizer: parts.text, config: parts.config };
    this.#path = parts.path;
    const { config, generation, modelConfig } = parts;
    const idOf = (token: string | null | undefined): number[] => {
      const id = token == null ? undefined : thread.call("idOf", token);
      return id === undefined ? [] : [id];
    };
    const configured = generation.bos_token_id ?? modelConfig.bos_token_id ?? [];
    // An explicit null is a statement (GLM has no BOS, though a config may carry a default for it).
    const bos =
      config.bos_token === null || config.add_bos_token === false ? [] : [...idOf(config.bos_token), ...configured];
    this.bosId = bos[0];
    this.eosIds = [
      ...new Set([...(generation.eos_token_id ?? modelConfig.eos_token_id ?? []), ...idOf(config.eos_token)]),
    ];
    this.chatTemplate = parts.chatTemplate;
    this.#cleansBlanks = config.clean_up_tokenization_spaces ?? false;
    this.hash = parts.hash;
    this.#specialTexts = { bos_token: config.bos_token ?? "", eos_token: config.eos_token ?? "" };
  }

  /**
   * Loads `tokenizer.json` and what stands beside it.
   * @throws InputError if a file is missing, malformed, or of a kind that is not supported
   */
  static async load(folder: string): Promise<Tokenizer> {
    const files = await readModelFiles(folder);
    const thread = new TokenizerThread({ tokenizer: files.text, config: files.config });
    return refuseFailures(`Cannot use the tokenizer of model "${basename(folder)}" ("${files.path}")`, () => {
      thread.call("load");
      return new Tokenizer(thread, files);
    });
  }

  /** The ids of a document or prompt, special tokens and the one BOS included. */
  encode(text: string): number[] {
    return this.#withOneBos(this.#idsOf(text, true));
  }

  /**
   * As `encode` of each. From the second call on several threads share the work: what is long enough for two calls is worth
   * the second or so that a large tokenizer takes to load.
   */
  encodeAll(texts: readonly string[]): number[][] {
    if (this.#crew === undefined) {
      this.#crew = [this.#thread];
      return texts.map((text) => this.encode(text));
    }
    try {
      if (this.#crew.length === 1) this.#crew.push(...this.#helpers());
      const parts = equalParts(texts, this.#crew.length);
      const answers = parts.map((part, place) => this.#crew?.[place]?.begin("encodeAll", part));
      return answers.flatMap((answer) => answer?.() ?? []).map((ids) => this.#withOneBos(Array.from(ids)));
    } catch (error) {
      if (!(error instanceof TokenizerFailure || error instanceof TokenizerOverrun)) throw error;
      // One by one, to say which it is.
      this.dismiss();
      return texts.map((text) => this.encode(text));
    }
  }

  /** Ends the threads that `encodeAll` began, and their memory. */
  dismiss(): void {
    for (const helper of this.#crew?.slice(1) ?? []) helper.end();
    this.#crew = undefined;
  }

  #helpers(): TokenizerThread[] {
    const count = Math.min(mostThreads, availableParallelism()) - 1;
    const helpers = Array.from({ length: count }, () => new TokenizerThread(this.#start));
    const loaded = helpers.map((helper) => helper.begin("load"));
    for (const load of loaded) load();
    return helpers;
  }

  /** The ids of the text alone. */
  encodePlain(text: string): number[] {
    return this.#idsOf(text, false);
  }

  #idsOf(text: string, special: boolean): number[] {
    const what = () => `Cannot tokenize a text with "${this.#path}" (${describeLongestRun(text)})`;
    return Array.from(refuseFailures(what, () => this.#thread.call("encode", text, special)));
  }

  /** Ids of a chat, ready for the assistant's answer. */
  encodeChat(messages: readonly ChatMessage[]): number[] {
    return this.encodeRendered(this.renderChat(messages));
  }

  /** Ids of a text that a template has given its special tokens, with the one BOS whether it wrote that or not. */
  encodeRendered(text: string): number[] {
    return this.#withOneBos(this.encodePlain(text));
  }

  /**
   * Text of the chat after the model's template, or another one.
   * @param options.variables further names that the template knows, such as `enable_thinking`
   */
  renderChat(
    messages: readonly ChatMessage[],
    options: { template?: string; variables?: Readonly<Record<string, unknown>> } = {},
  ): string {
    const { template = this.chatTemplate, variables = {} } = options;
    if (template === undefined) {
      throw new InputError("The model has no chat template", {
        hint: "leave --chat away to continue the text as it is",
      });
    }
    const names = { messages, add_generation_prompt: true, ...variables, ...this.#specialTexts };
    const own = template === this.chatTemplate ? `the chat template beside "${this.#path}"` : "the chat template";
    return refuseFailures(`Cannot render ${own}`, () => this.#thread.call("render", template, names));
  }

  /** The id of a token by its text; undefined if the vocabulary does not have it. */
  idOf(token: string): number | undefined {
    return this.#thread.call("idOf", token);
  }

  /** The texts of the tokens that begin and end documents; undefined if the checkpoint names none. */
  get specialTokens(): { bos: string | undefined; eos: string | undefined } {
    const { bos_token: bos, eos_token: eos } = this.#specialTexts;
    return { bos: bos === "" ? undefined : bos, eos: eos === "" ? undefined : eos };
  }

  /** Text of ids, special tokens included. */
  decodeWhole(sequence: readonly number[]): string {
    return this.#textOf(sequence, false);
  }

  /** Text of ids, special tokens left out. */
  decode(sequence: readonly number[]): string {
    return this.#textOf(sequence, true);
  }

  #textOf(sequence: readonly number[], skipsSpecial: boolean): string {
    if (sequence.length === 0) return "";
    const options = { skipsSpecial, cleansBlanks: this.#cleansBlanks };
    const what = `Cannot turn ids into text with "${this.#path}"`;
    return refuseFailures(what, () => this.#thread.call("decode", [...sequence], options));
  }

  /**
   * Decodes a growing sequence. A token's text depends on its neighbours (a character of several tokens, a leading
   * blank), so the tokens since the last emission are decoded together with those of the emission before it.
   */
  detokenizer(): Detokenizer {
    let window: number[] = [];
    let emitted = 0;
    const take = (force: boolean): string => {
      const before = this.decode(window.slice(0, emitted));
      const now = this.decode(window);
      if (!force && (now.length <= before.length || now.endsWith("\ufffd"))) return "";
      window = window.slice(emitted);
      emitted = window.length;
      return now.slice(before.length);
    };
    return {
      push: (id) => {
        window.push(id);
        return take(false);
      },
      end: () => take(true),
    };
  }

  #withOneBos(sequence: number[]): number[] {
    if (this.bosId === undefined) return sequence;
    let first = 0;
    while (sequence[first] === this.bosId) first++;
    return first === 1 ? sequence : [this.bosId, ...sequence.slice(first)];
  }
}

/** Threads that share long texts: each holds a tokenizer of its own. */
const mostThreads = 4;

/** Neighbouring texts, about as many characters in each part; parts may be empty. */
function equalParts(texts: readonly string[], count: number): string[][] {
  const whole = texts.reduce((sum, { length }) => sum + length, 0);
  const parts = Array.from({ length: count }, (): string[] => []);
  let before = 0;
  for (const text of texts) {
    const place = Math.min(count - 1, Math.floor((count * (before + text.length / 2)) / Math.max(1, whole)));
    parts[place]?.push(text);
    before += text.length;
  }
  return parts;
}

/** Turns failures of the thread into one sentence. */
function refuseFailures<T>(what: string | (() => string), work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof TokenizerFailure || error instanceof TokenizerOverrun)) throw error;
    throw new InputError(`${typeof what === "string" ? what : what()}: ${error.message}`, { cause: error });
  }
}

/** Where a tokenizer is most likely to be slow: its time may grow with the square of a word's length. */
export function describeLongestRun(text: string): string {
  let longest = { kind: "blanks", from: 0, length: 0 };
  for (const { 0: run, index } of text.matchAll(/\s+|\S+/g)) {
    if (run.length > longest.length) {
      longest = { kind: /^\s/.test(run) ? "blanks" : "characters without a blank", from: index, length: run.length };
    }
  }
  const count = (value: number): string => value.toLocaleString("en-US");
  return `${count(text.length)} characters; its longest run has ${count(longest.length)} ${longest.kind}, from character ${count(longest.from)}`;
}

interface ModelFiles {
  /** Path of tokenizer.json, and its text. */
  path: string;
  text: string;
  config: z.infer<typeof tokenizerConfigSchema>;
  generation: z.infer<typeof generationSchema>;
  modelConfig: z.infer<typeof generationSchema>;
  chatTemplate: string | undefined;
  hash: string;
}

async function readModelFiles(folder: string): Promise<ModelFiles> {
  const read = async <T>(name: string, schema: z.ZodType<T>, absent: T): Promise<T> => {
    const text = await readOptional(join(folder, name));
    return text === undefined ? absent : parseJson(text, schema, `File "${join(folder, name)}"`);
  };
  const config = await read("tokenizer_config.json", tokenizerConfigSchema, {});
  const template = config.chat_template;
  const path = join(folder, "tokenizer.json");
  const text = await readOptional(path);
  if (text === undefined) {
    throw new InputError(`Model folder "${folder}" has no tokenizer.json`, {
      hint: "text needs the checkpoint's fast tokenizer; token ids (--tokens-file, input_ids) do not",
    });
  }
  return {
    path,
    text,
    hash: hashOfContent(parseJson(text, tokenizerSchema, `File "${path}"`), path),
    config,
    generation: await read("generation_config.json", generationSchema, {}),
    modelConfig: await read("config.json", generationSchema, {}),
    chatTemplate:
      (await readOptional(join(folder, "chat_template.jinja"))) ??
      (typeof template === "string" ? template : template?.find(({ name }) => name === "default")?.template),
  };
}

/** Of the content, so that another spelling of the same file has the same hash. */
function hashOfContent(content: unknown, path: string): string {
  try {
    return hashBytes(JSON.stringify(content));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new InputError(`File "${path}" nests too deeply to be a tokenizer`, { cause: error });
  }
}

async function readOptional(path: string): Promise<string | undefined> {
  return readTextIfPresent(path, `"${path}"`);
}
