/**
 * Log-probabilities as `/v1/completions` writes them. lm-evaluation-harness reads them: one entry for each token of the
 * prompt and of the continuation, null for the first, and among the most likely tokens the chosen one's very number.
 */
import type { RowScore } from "./row-score.ts";
import { idText, type TokenTexts } from "./token-text.ts";

export class CompletionLogprobs {
  readonly #texts: TokenTexts;
  readonly #top: number;
  readonly #asIds: boolean;
  readonly #tokens: string[] = [];
  readonly #tokenLogprobs: (number | null)[] = [];
  readonly #topLogprobs: (Record<string, number> | null)[] = [];
  readonly #offsets: number[] = [];
  #offset: number;

  /**
   * @param top most likely tokens of each entry; the chosen one is added where it is none of them
   * @param asIds writes `token_id:N` for texts
   * @param offset characters before the first token
   */
  constructor(texts: TokenTexts, top: number, asIds: boolean, offset: number) {
    this.#texts = texts;
    this.#top = top;
    this.#asIds = asIds;
    this.#offset = offset;
  }

  /** Characters up to the end of the last token. */
  get offset(): number {
    return this.#offset;
  }

  addPrompt(ids: readonly number[], scores: readonly RowScore[]): void {
    const [first] = ids;
    if (first === undefined) return;
    this.#push(this.#name(first), null, null);
    for (const score of scores) this.add(score);
  }

  add(score: RowScore): void {
    const likely = score.top.slice(0, this.#top);
    const all = likely.some(({ id }) => id === score.id) ? likely : [...likely, score];
    const named: Record<string, number> = {};
    // Two tokens may have the same text (parts of characters): the second goes by its id, so that none is lost.
    for (const { id, logprob } of all) {
      const name = this.#name(id);
      named[Object.hasOwn(named, name) ? idText(id) : name] = logprob;
    }
    this.#push(this.#name(score.id), score.logprob, named);
  }

  fields(): unknown {
    return {
      tokens: this.#tokens,
      token_logprobs: this.#tokenLogprobs,
      top_logprobs: this.#topLogprobs,
      text_offset: this.#offsets,
    };
  }

  #push(name: string, logprob: number | null, top: Record<string, number> | null): void {
    this.#tokens.push(name);
    this.#tokenLogprobs.push(logprob);
    this.#topLogprobs.push(top);
    this.#offsets.push(this.#offset);
    this.#offset += name.length;
  }

  #name(id: number): string {
    return this.#asIds ? idText(id) : this.#texts.of(id);
  }
}
