/** A prompt's scores as vLLM writes them. */
import type { RowScore } from "./row-score.ts";
import type { TokenTexts } from "./token-text.ts";

export interface PromptLogprob {
  logprob: number;
  rank: number;
  decoded_token: string;
}

/** For each token of the prompt: nothing for the first, then the token itself and the `top` most likely ones by id. */
export function promptLogprobs(
  scores: readonly RowScore[],
  top: number,
  texts: TokenTexts,
): (Record<string, PromptLogprob> | null)[] {
  return [
    null,
    ...scores.map(({ id, logprob, rank, top: likely }) => {
      const entries = likely.slice(0, top).map((token, index) => [token.id, token.logprob, index + 1] as const);
      const all = [[id, logprob, rank] as const, ...entries.filter(([other]) => other !== id)];
      return Object.fromEntries(
        all.map(([key, value, place]) => [key, { logprob: value, rank: place, decoded_token: texts.of(key) }]),
      );
    }),
  ];
}
