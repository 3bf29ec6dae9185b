/** Texts of single tokens, as log-probabilities name them. */
import type { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";

export class TokenTexts {
  readonly #tokenizer: Tokenizer | undefined;
  readonly #known = new Map<number, string>();

  constructor(tokenizer: Tokenizer | undefined) {
    this.#tokenizer = tokenizer;
  }

  /** A token's text, special ones included; `token_id:N` for a model without a tokenizer. */
  of(id: number): string {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const text = this.#tokenizer?.decodeWhole([id]) ?? idText(id);
    this.#known.set(id, text);
    return text;
  }
}

/** How vLLM writes a token without its text. */
export function idText(id: number): string {
  return `token_id:${id}`;
}
