/**
 * Several patterns of one model answer the same prompts: each prefills the prompt, then every arm scores the gold answer and
 * decodes. In this process; `parallel-arms.ts` spreads prompts.
 */
import { commonPrefix } from "../../base/common-prefix.ts";
import { sum } from "../../base/sum.ts";
import type { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import type { Finish } from "./continuation.ts";
import { type GenerationResult, generate } from "./generation.ts";
import { PatternDecoders, type PrefilledDecoder, type PrefillSettings } from "./pattern-decoders.ts";
import { createSampler, logProbability } from "./sampling.ts";

/** A prompt and what is wanted of it. Everything is ids and passes between processes. */
export interface PromptRequest {
  /** Place of the item in its suite: whatever is asked about one item is answered by one machine. */
  item?: number;
  prompt: readonly number[];
  /**
   * Prompt and gold answer. They agree with `prompt` up to `start`; the answer's tokens are those from `scored` on, which
   * is `start` unless other tokens lead the answer than the prompt ends with.
   */
  answer?: { ids: readonly number[]; start: number; scored?: number };
  /** Prompt and what leads a label, and each label's tokens after it. */
  choices?: { shared: readonly number[]; options: readonly (readonly number[])[] };
  maxNewTokens: number;
  stop: readonly string[];
  /** Tokens that end it, and how many have to come before them or an end of sequence. */
  stopIds?: readonly number[];
  minNewTokens?: number;
  /** Sampling instead of the most likely token. Every arm draws the same random numbers. */
  sampling?: { temperature: number; seed: number };
}

/** How one arm answered. */
export interface ArmAnswer {
  tokens: number[];
  text: string;
  finish: Finish;
  /** Sum of the negative log-probabilities of the gold answer's tokens, nats. */
  answerLoss?: { nats: number; tokens: number };
  /** Log-probability of each label. */
  choices?: number[];
  prefillSeconds: number;
  decodeSeconds: number;
}

/** What answers prompts: this process, or several. */
export interface ArmRunner {
  /** Prompts that are worked on side by side. */
  readonly concurrency: number;
  /** Prompts that it wants to have at a time, where that is more than it works on. */
  readonly inHand?: number;
  /** CPU threads of each process, which decide the last bits; absent where a server decides. */
  readonly threads?: number;
  readonly plan: string[];
  /** Answers of `patterns`, in their order; several may be the same. */
  answer(request: PromptRequest, patterns: readonly Pattern[], signal?: AbortSignal): Promise<ArmAnswer[]>;
  release(): Promise<void>;
}

export class Arms implements ArmRunner {
  readonly concurrency = 1;
  readonly threads: number;
  readonly plan: string[];
  readonly #decoders: PatternDecoders;
  readonly #tokenizer: Tokenizer;
  readonly #window: number;
  readonly #eosIds: readonly number[];

  constructor(model: ModelFolder, tokenizer: Tokenizer, decoders: PatternDecoders, threads: number) {
    this.threads = threads;
    this.#decoders = decoders;
    this.#tokenizer = tokenizer;
    this.#window = model.config.maxPositionEmbeddings;
    this.#eosIds = tokenizer.eosIds;
    this.plan = decoders.plan;
  }

  /** Opens what the device takes for these patterns. */
  static async open(
    model: ModelFolder,
    tokenizer: Tokenizer,
    patterns: readonly Pattern[],
    settings: PrefillSettings,
  ): Promise<Arms> {
    const decoders = await PatternDecoders.open(model, [...new Set(patterns)], settings);
    return new Arms(model, tokenizer, decoders, settings.threads);
  }

  async answer(request: PromptRequest, patterns: readonly Pattern[], signal?: AbortSignal): Promise<ArmAnswer[]> {
    const answers = new Array<ArmAnswer>(patterns.length);
    const longest = Math.max(request.answer?.ids.length ?? 0, request.prompt.length + request.maxNewTokens);
    const room = Math.min(longest, this.#window) - request.prompt.length + 1;
    for (const one of new Set(patterns)) {
      const prefilled = await this.#decoders.prefill(request.prompt, one, room, signal);
      // Arms of the same pattern decode each for itself: that is what shows whether the machine repeats itself.
      for (const [index, pattern] of patterns.entries()) {
        if (pattern !== one) continue;
        const { decoder } = prefilled;
        const scored = await score(decoder, request, prefilled, signal);
        const result = await this.#generate(decoder, request, prefilled, signal);
        decoder.rewind(request.prompt.length);
        const { tokens, text, finish, decodeSeconds } = result;
        answers[index] = { tokens, text, finish, ...scored, prefillSeconds: prefilled.seconds, decodeSeconds };
      }
    }
    return answers;
  }

  async release(): Promise<void> {
    await this.#decoders.release();
  }

  async #generate(
    decoder: CachedDecoder,
    request: PromptRequest,
    { logits }: PrefilledDecoder,
    signal: AbortSignal | undefined,
  ): Promise<GenerationResult> {
    const { prompt, maxNewTokens, stop, stopIds, minNewTokens, sampling } = request;
    const options = {
      prefilled: logits,
      window: this.#window,
      eosIds: this.#eosIds,
      text: this.#tokenizer.detokenizer(),
      sample: sampling && createSampler(sampling),
      ...{ maxNewTokens, minNewTokens, stop, stopIds, signal },
    };
    for await (const event of generate(decoder, prompt, options)) {
      if (event.kind === "done") return event.result;
    }
    throw new Error("the generation ended without a result");
  }
}

/** Teacher forcing after the prompt; the decoder is afterwards where it was. */
async function score(
  decoder: CachedDecoder,
  { prompt, answer, choices }: PromptRequest,
  { logits }: PrefilledDecoder,
  signal: AbortSignal | undefined,
): Promise<Pick<ArmAnswer, "answerLoss" | "choices">> {
  const result: Pick<ArmAnswer, "answerLoss" | "choices"> = {};
  if (answer !== undefined && answer.ids.length > answer.start) {
    const { ids, start, scored = start } = answer;
    const { logProbabilities } = await decoder.lookAhead(ids, start, signal);
    const own = logProbabilities.slice(scored - start);
    result.answerLoss = { nats: -sum(own), tokens: own.length };
  }
  if (choices === undefined) return result;
  const { shared, options } = choices;
  const start = commonPrefix([prompt, shared]);
  // Where nothing leads the labels, the prefill's own logits follow the prompt.
  const next =
    start === shared.length && start === prompt.length
      ? logits
      : (await decoder.lookAhead(shared, start, signal)).logits;
  result.choices = [];
  for (const option of options) {
    const [first = -1, ...rest] = option;
    let total = logProbability(next, first);
    if (rest.length > 0) {
      const { logProbabilities } = await decoder.lookAhead([...shared, ...option], start, signal);
      total = sum(logProbabilities.slice(shared.length - start));
    }
    result.choices.push(total);
  }
  return result;
}
