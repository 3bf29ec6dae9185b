/** From requests' fields to sequences, and from a sequence's events to one result. */
import { randomInt } from "node:crypto";
import type { z } from "zod";
import type { Finish } from "../runtime/generate/continuation.ts";
import type { SamplingOptions } from "../runtime/generate/sampling.ts";
import { ApiError } from "./api-error.ts";
import type { ModelRunner, SequenceEvent, SequenceRequest } from "./model-runner.ts";
import type { samplingFields } from "./request-fields.ts";
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

type SamplingFields = Omit<z.infer<z.ZodObject<typeof samplingFields>>, "n">;

/** What a request's fields make of the next token and of the end; `choice` counts continuations of one prompt. */
export function sequenceFields(runner: ModelRunner, fields: SamplingFields, choice = 0) {
  const { tokenizer, config } = runner;
  const own = fields.ignore_eos === true ? [] : (tokenizer?.eosIds ?? config.eosTokenIds);
  return {
    sampling: samplingOf(fields, choice),
    stop: fields.stop,
    eosIds: [...own, ...(fields.stop_token_ids ?? [])],
    minTokens: fields.min_tokens ?? undefined,
  };
}

/** OpenAI's defaults: a temperature of 1, and a seed of its own for every request that names none. */
function samplingOf({ temperature, seed, top_p: topP, top_k: topK }: SamplingFields, choice: number): SamplingOptions {
  return {
    temperature: temperature ?? 1,
    seed: seed == null ? randomInt(2 ** 47) : seed + choice,
    // 1 leaves every token in: as if nobody had named it, to the very tokens that are drawn.
    ...(topP == null || topP === 1 ? {} : { topP }),
    ...(topK == null || topK < 1 ? {} : { topK }),
  };
}

/** @throws ApiError for an id that no token has */
export function requireInVocabulary(ids: readonly number[], vocabSize: number, param: string, where = ""): void {
  const wrong = ids.findIndex((id) => id >= vocabSize);
  if (wrong < 0) return;
  const place = where === "" ? "" : ` at position ${wrong} of ${where}`;
  throw new ApiError(400, `Token id ${ids[wrong]}${place} is outside the model's vocabulary of ${vocabSize}`, param);
}

/** @throws ApiError for a sequence that the model cannot run */
export function requireRunnable(runner: ModelRunner, { ids, maxTokens, stop }: SequenceRequest, param: string): void {
  const { vocabSize, maxPositionEmbeddings } = runner.config;
  if (ids.length === 0) throw new ApiError(400, "The prompt is empty: it has no token", param);
  requireInVocabulary(ids, vocabSize, param, "the prompt");
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
