/** Text generation over a `Decoder`: one prefill, then a token at a time until something ends it. */
import { setImmediate } from "node:timers/promises";
import { InputError, UsageError } from "../../base/errors.ts";
import type { Decoder } from "../measurement.ts";
import { Continuation, type EndingOptions, type Finish } from "./continuation.ts";
import { mostLikely, type Sampler } from "./sampling.ts";

export interface GenerationOptions extends EndingOptions {
  sample?: Sampler | undefined;
  /** Before so many tokens neither `eosIds` nor `stopIds` may come: they count as impossible. Default 0. */
  minNewTokens?: number | undefined;
  /** Logits after the prompt, where it is in the decoder's caches already. */
  prefilled?: Float32Array;
  signal?: AbortSignal | undefined;
}

export interface GenerationResult {
  promptTokens: number;
  /** The generated ids, the end-of-sequence token included. */
  tokens: number[];
  text: string;
  finish: Finish;
  prefillSeconds: number;
  /** Of all tokens but the first, which the prefill returns. */
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
  decoder: Pick<Decoder, "vocabularySize" | "prefill" | "decode" | "indexerExecutions">,
  prompt: readonly number[],
  options: GenerationOptions,
): AsyncGenerator<GenerationEvent> {
  requirePrompt(prompt, decoder.vocabularySize, options);
  const { signal, minNewTokens = 0 } = options;
  const sample = options.sample ?? mostLikely;
  const ending = [...(options.eosIds ?? []), ...(options.stopIds ?? [])];
  const continuation = new Continuation(prompt.length, options);

  let logits: Float32Array = new Float32Array();
  const prefillSeconds = await time(async () => {
    logits = options.prefilled ?? (await decoder.prefill(prompt, signal));
  });
  yield { kind: "prefilled", seconds: prefillSeconds };
  let decodeSeconds = 0;
  for (;;) {
    const id = sample(continuation.tokens.length < minNewTokens ? without(logits, ending) : logits);
    yield { kind: "token", id, text: continuation.push(id) };
    if (continuation.ended) break;
    // The runtime's calls block the event loop: without this turn no signal would be seen and no text leave the process.
    await setImmediate();
    signal?.throwIfAborted();
    decodeSeconds += await time(async () => {
      logits = await decoder.decode(id);
    });
  }
  const rest = continuation.end();
  const { tokens, text, finish } = continuation;
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

/** @throws as `generate` does, for whoever wants to know before a model is loaded */
export function requirePrompt(
  prompt: readonly number[],
  vocabularySize: number,
  { maxNewTokens, window }: Pick<GenerationOptions, "maxNewTokens" | "window">,
): void {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new UsageError(`--max-new-tokens is ${maxNewTokens}: it must be a whole number from 1 up`);
  }
  if (prompt.length === 0) throw new UsageError("The prompt is empty: it has no token");
  if (prompt.length >= window) {
    throw new InputError(`The prompt has ${prompt.length} tokens, the model's window is ${window}`, {
      hint: "shorten it: the window is max_position_embeddings of config.json, and an answer needs room as well",
    });
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
