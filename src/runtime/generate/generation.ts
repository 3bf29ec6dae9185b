/** Text generation over a `Decoder`: one prefill, then a token at a time until something ends it. */
import { setImmediate } from "node:timers/promises";
import { InputError, UsageError } from "../../base/errors.ts";
import type { Decoder } from "../measurement.ts";
import { mostLikely, type Sampler } from "./sampling.ts";

/** Turns ids into text; the tokenizer's streaming one, or nothing for prompts of ids without a tokenizer. */
export interface TextStream {
  push(id: number): string;
  end(): string;
}

export interface GenerationOptions {
  maxNewTokens: number;
  /** Positions that the model was made for; generation ends there. */
  window: number;
  sample?: Sampler;
  text?: TextStream;
  /** Any of these ends the text; empty to go on past them. */
  eosIds?: readonly number[];
  /** Any of these in the text ends it; the stop string itself is left out. */
  stop?: readonly string[];
  /** Any of these ends it as a stop string does. */
  stopIds?: readonly number[];
  /** Before so many tokens neither `eosIds` nor `stopIds` may come: they count as impossible. Default 0. */
  minNewTokens?: number;
  signal?: AbortSignal;
}

/** What ended the text: an end-of-sequence token, a stop string or stop token, the number of tokens, or the model's window. */
export type Finish = "eos" | "stop" | "length" | "window";

export interface GenerationResult {
  promptTokens: number;
  /** The generated ids, the end-of-sequence token included. */
  tokens: number[];
  text: string;
  finish: Finish;
  prefillSeconds: number;
  /** Of all tokens but the first, which the prefill gives. */
  decodeSeconds: number;
  indexerExecutions: { made: number; saved: number };
}

export type GenerationEvent =
  | { kind: "prefilled"; seconds: number }
  /** `text` is what became certain: it may be empty, and it never reaches into a stop string or half a character. */
  | { kind: "token"; id: number; text: string }
  | { kind: "done"; text: string; result: GenerationResult };

/**
 * Generates from a prompt of ids.
 * @throws UsageError or InputError for a prompt that is empty, outside the vocabulary, or as long as the window
 */
export async function* generate(
  decoder: Decoder,
  prompt: readonly number[],
  options: GenerationOptions,
): AsyncGenerator<GenerationEvent> {
  requirePrompt(prompt, decoder.vocabularySize, options);
  const { signal, text: stream, minNewTokens = 0 } = options;
  const sample = options.sample ?? mostLikely;
  const guard = new StopGuard(options.stop ?? []);
  const eosIds = new Set(options.eosIds);
  const stopIds = new Set(options.stopIds);
  const room = options.window - prompt.length;
  const limit = Math.min(options.maxNewTokens, room);
  const tokens: number[] = [];
  let text = "";

  let logits: Float32Array = new Float32Array();
  const prefillSeconds = await time(async () => {
    logits = await decoder.prefill(prompt, signal);
  });
  yield { kind: "prefilled", seconds: prefillSeconds };
  let decodeSeconds = 0;
  let finish: Finish = limit < options.maxNewTokens ? "window" : "length";
  for (;;) {
    const id = sample(tokens.length < minNewTokens ? without(logits, [...eosIds, ...stopIds]) : logits);
    tokens.push(id);
    const ended = eosIds.has(id) || stopIds.has(id);
    const certain = ended ? "" : guard.push(stream?.push(id) ?? "");
    text += certain;
    yield { kind: "token", id, text: certain };
    if (ended) finish = eosIds.has(id) ? "eos" : "stop";
    if (guard.stopped) finish = "stop";
    if (ended || guard.stopped || tokens.length === limit) break;
    // The runtime's calls block the event loop: without this turn no signal would be seen and no text leave the process.
    await setImmediate();
    signal?.throwIfAborted();
    decodeSeconds += await time(async () => {
      logits = await decoder.decode(id);
    });
  }
  const rest = guard.push(stream?.end() ?? "") + guard.end();
  text += rest;
  if (guard.stopped) finish = "stop";
  yield {
    kind: "done",
    text: rest,
    result: {
      promptTokens: prompt.length,
      tokens,
      text,
      finish,
      prefillSeconds,
      decodeSeconds,
      indexerExecutions: { ...decoder.indexerExecutions },
    },
  };
}

function without(logits: Float32Array, ids: readonly number[]): Float32Array {
  const allowed = logits.slice();
  for (const id of ids) if (id < allowed.length) allowed[id] = Number.NEGATIVE_INFINITY;
  return allowed;
}

/** Holds text back for as long as it may be the beginning of a stop string. */
class StopGuard {
  stopped = false;
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new UsageError("--stop is empty: it must be some text");
    this.#stops = stops;
  }

  push(text: string): string {
    if (this.stopped) return "";
    this.#held += text;
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    this.stopped = found.length > 0;
    return this.#release(this.stopped ? Math.min(...found) : this.#held.length - this.#possibleBeginning());
  }

  /** What is left once nothing can follow. */
  end(): string {
    return this.stopped ? "" : this.#release(this.#held.length);
  }

  #release(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text that a stop string begins with. */
  #possibleBeginning(): number {
    const lengths = this.#stops.map((stop) => {
      let length = Math.min(stop.length - 1, this.#held.length);
      while (length > 0 && !this.#held.endsWith(stop.slice(0, length))) length--;
      return length;
    });
    return Math.max(0, ...lengths);
  }
}

function requirePrompt(
  prompt: readonly number[],
  vocabularySize: number,
  { maxNewTokens, window }: GenerationOptions,
): void {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new UsageError(`--max-new-tokens is ${maxNewTokens}: it must be a whole number from 1 up`);
  }
  if (prompt.length === 0) throw new UsageError("The prompt is empty: it has no token");
  if (prompt.length >= window) {
    throw new InputError(`The prompt has ${prompt.length} tokens, the model's window is ${window}`);
  }
  const position = prompt.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabularySize));
  if (position >= 0) {
    throw new InputError(
      `Token id ${prompt[position]} at position ${position} of the prompt is outside the model's vocabulary of ${vocabularySize}`,
    );
  }
}

async function time(operation: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await operation();
  return (performance.now() - start) / 1000;
}
