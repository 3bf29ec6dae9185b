/** From requests' fields to sequences, and from a sequence's events to one result. */
import { randomInt } from "node:crypto";
import type { Finish } from "../runtime/generate/continuation.ts";
import type { SamplingOptions } from "../runtime/generate/sampling.ts";
import { ApiError } from "./api-error.ts";
import type { ModelRunner, SequenceEvent, SequenceRequest } from "./model-runner.ts";
import type { RowScore, ScoredToken } from "./row-score.ts";

export interface SequenceResult {
  promptScores: readonly RowScore[];
  reused: number;
  tokens: { id: number; score: RowScore | undefined; given: readonly ScoredToken[] }[];
  text: string;
  finish: Finish;
}

/** Runs a sequence to its end. */
export async function collect(events: AsyncGenerator<SequenceEvent>): Promise<SequenceResult> {
  const result: SequenceResult = { promptScores: [], reused: 0, tokens: [], text: "", finish: "length" };
  for await (const event of events) {
    if (event.kind === "prompt") Object.assign(result, { promptScores: event.scores, reused: event.reused });
    else {
      result.text += event.text;
      if (event.kind === "done") result.finish = event.finish;
      else result.tokens.push({ id: event.id, score: event.score, given: event.given });
    }
  }
  return result;
}

/** The reason as clients know it. */
export function finishReason(finish: Finish): "stop" | "length" {
  return finish === "eos" || finish === "stop" ? "stop" : "length";
}

export interface SamplingFields {
  temperature?: number | null | undefined;
  top_p?: number | null | undefined;
  top_k?: number | null | undefined;
  seed?: number | null | undefined;
}

/** OpenAI's defaults: a temperature of 1, and a seed of its own for every request that names none. */
export function samplingOf(fields: SamplingFields, choice = 0): SamplingOptions {
  const { top_p: topP, top_k: topK } = fields;
  return {
    temperature: fields.temperature ?? 1,
    seed: fields.seed == null ? randomInt(2 ** 47) : fields.seed + choice,
    // 1 leaves every token in: as if nobody had named it, to the very tokens that are drawn.
    ...(topP == null || topP === 1 ? {} : { topP }),
    ...(topK == null || topK < 1 ? {} : { topK }),
  };
}

/** Tokens that end a text. */
export function endingIds(
  runner: ModelRunner,
  fields: { ignore_eos?: boolean | null | undefined; stop_token_ids?: readonly number[] | null | undefined },
): number[] {
  const own = fields.ignore_eos === true ? [] : (runner.tokenizer?.eosIds ?? runner.config.eosTokenIds);
  return [...own, ...(fields.stop_token_ids ?? [])];
}

/** @throws ApiError for a sequence that the model cannot run */
export function requireRunnable(runner: ModelRunner, { ids, maxTokens, stop }: SequenceRequest, param: string): void {
  const { vocabSize, maxPositionEmbeddings } = runner.config;
  if (ids.length === 0) throw new ApiError(400, "The prompt is empty: it has no token", param);
  const wrong = ids.findIndex((id) => id >= vocabSize);
  if (wrong >= 0) {
    throw new ApiError(
      400,
      `Token id ${ids[wrong]} at position ${wrong} of the prompt is outside the model's vocabulary of ${vocabSize}`,
      param,
    );
  }
  if (ids.length > maxPositionEmbeddings || ids.length + maxTokens > runner.mostTokens) {
    throw new ApiError(
      400,
      `This model's context is ${maxPositionEmbeddings} tokens: the prompt has ${ids.length}, and ${maxTokens} more are asked for`,
      param,
    );
  }
  if (stop.length > 0 && runner.tokenizer === undefined) {
    throw new ApiError(400, "The model has no tokenizer: stop texts cannot be found", "stop");
  }
}
