/** A stand-in for tokenizers where only the length counts: a token is a word with its blank, a sign, or a line break. */
import type { TokenCounter } from "../../src/eval/item.ts";

export const tokenizerHash = "words";

/** Ids are given as words come; `decode` is their inverse. */
export function wordCounter(): TokenCounter & { calls: number } {
  const ids = new Map<string, number>();
  const words: string[] = [];
  return {
    calls: 0,
    encode(text) {
      this.calls++;
      return (text.match(/ ?[A-Za-z0-9]+|\s| ?[^\sA-Za-z0-9]/gu) ?? []).map((word) => {
        const known = ids.get(word);
        if (known !== undefined) return known;
        ids.set(word, words.length);
        return words.push(word) - 1;
      });
    },
    decode: (sequence) => sequence.map((id) => words[id] ?? "").join(""),
  };
}
