/** What tokens come to as they are generated: their text as far as it is certain, and what ends it. */
import { UsageError } from "../../base/errors.ts";

/** Turns ids into text; the tokenizer's streaming one, or nothing for prompts of ids without a tokenizer. */
export interface TextStream {
  push(id: number): string;
  end(): string;
}

/** What ended the text: an end-of-sequence token, a stop string or stop token, the number of tokens, or the model's window. */
export type Finish = "eos" | "stop" | "length" | "window";

/** What may end a text. */
export interface EndingOptions {
  maxNewTokens: number;
  /** Positions that the model was made for; generation ends there. */
  window: number;
  text?: TextStream | undefined;
  /** Any of these ends the text; empty to go on past them. */
  eosIds?: readonly number[];
  /** Any of these in the text ends it; the stop string itself is left out. */
  stop?: readonly string[];
  /** Any of these ends it as a stop string does. */
  stopIds?: readonly number[] | undefined;
}

export class Continuation {
  /** The end-of-sequence token included. */
  readonly tokens: number[] = [];
  /** What is certain; complete after `end`. */
  text = "";
  finish: Finish;
  ended = false;
  readonly #limit: number;
  readonly #stream: TextStream | undefined;
  readonly #guard: StopGuard;
  readonly #eosIds: ReadonlySet<number>;
  readonly #stopIds: ReadonlySet<number>;

  /** @param promptTokens positions that are taken */
  constructor(promptTokens: number, { maxNewTokens, window, text, eosIds, stop, stopIds }: EndingOptions) {
    this.#limit = Math.min(maxNewTokens, window - promptTokens);
    this.finish = this.#limit < maxNewTokens ? "window" : "length";
    this.#stream = text;
    this.#guard = new StopGuard(stop ?? []);
    this.#eosIds = new Set(eosIds);
    this.#stopIds = new Set(stopIds);
  }

  /** @returns the text that becomes certain by this token: it never reaches into a stop string or half a character */
  push(id: number): string {
    this.tokens.push(id);
    const isEnd = this.#eosIds.has(id) || this.#stopIds.has(id);
    const certain = isEnd ? "" : this.#guard.push(this.#stream?.push(id) ?? "");
    this.text += certain;
    if (isEnd) this.finish = this.#eosIds.has(id) ? "eos" : "stop";
    if (this.#guard.stopped) this.finish = "stop";
    this.ended = isEnd || this.#guard.stopped || this.tokens.length === this.#limit;
    return certain;
  }

  /** @returns what was held back; nothing is pushed after it */
  end(): string {
    const rest = this.#guard.push(this.#stream?.end() ?? "") + this.#guard.end();
    this.text += rest;
    if (this.#guard.stopped) this.finish = "stop";
    return rest;
  }
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
