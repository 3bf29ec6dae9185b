/** A model's tokenizer as suites see it. */
import type { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";
import type { TokenCounter } from "./item.ts";

export function tokenCounter(tokenizer: Tokenizer): TokenCounter {
  return {
    encode: (text) => tokenizer.encodePlain(text),
    decode: (ids) => tokenizer.decode(ids),
    specialTokens: tokenizer.encode("x").length - tokenizer.encodePlain("x").length,
  };
}
