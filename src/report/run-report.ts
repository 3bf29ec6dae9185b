/** What `run` tells about a generation. */
import type { Pattern } from "../pattern/pattern.ts";
import type { GenerationResult } from "../runtime/generate/generation.ts";
import { formatBytes, formatCount, formatDuration, formatRate } from "./quantities.ts";

/** The `--json` form. */
export function runRecord(pattern: Pattern, result: GenerationResult) {
  return {
    index_topk_pattern: pattern,
    prompt_tokens: result.promptTokens,
    /** Generated ids, the end-of-sequence token included. */
    tokens: result.tokens,
    text: result.text,
    prefill_seconds: result.prefillSeconds,
    decode_seconds: result.decodeSeconds,
    /** One for each layer and forward call: those that ran, and those that Shared layers saved. */
    indexer_executions: result.indexerExecutions,
  };
}

export interface RunStart {
  /** Seconds until weights were loaded. */
  loadSeconds: number;
  /** The prompt is the first that the session runs, and the device chooses kernels and takes memory during it. */
  warmsUp: boolean;
}

export interface RunMemory {
  /** Peak resident bytes of the process. */
  peak: number;
  latent: number;
  indexerKey: number;
}

/** The line of statistics. */
export function formatRunStatistics(
  result: GenerationResult,
  memory: RunMemory,
  { loadSeconds, warmsUp }: RunStart,
): string {
  const { promptTokens, tokens, prefillSeconds, decodeSeconds, indexerExecutions, finish } = result;
  const reasons = { eos: "end of text", stop: "stop string", length: "token limit", window: "the model's window" };
  return [
    `loaded in ${formatDuration(loadSeconds)}`,
    `prefill ${formatCount(promptTokens)} tokens, ${formatRate(promptTokens, prefillSeconds)}${warmsUp ? " with warm-up" : ""}`,
    // The first token comes out of the prefill.
    `decode ${formatCount(tokens.length)} tokens, ${formatRate(tokens.length - 1, decodeSeconds)}`,
    `memory ${formatBytes(memory.peak)} (caches ${formatBytes(memory.latent)} latent, ${formatBytes(memory.indexerKey)} indexer keys)`,
    `indexers ${formatCount(indexerExecutions.made)} run, ${formatCount(indexerExecutions.saved)} saved`,
    `ended by ${reasons[finish]}`,
  ].join("; ");
}
