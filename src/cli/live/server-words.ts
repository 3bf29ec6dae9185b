/** What is said of a server and of what was found out about it, on stderr. */
import type { EngineDescription } from "../../live/engine-adapter.ts";
import type { Preflight } from "../../live/preflight.ts";
import { formatCount, formatDuration, formatLoss, formatLossChange, formatRate } from "../../report/quantities.ts";

/** One line: what serves, and how. */
export function describeServer(url: string, served: EngineDescription): string {
  const { title, servedModel, layers, tensorParallel, pipelineParallel, dtype, kvCacheDtype, headDtype } = served;
  const parts = [
    `${title} at ${url}`,
    servedModel,
    `${layers} layers`,
    ...(tensorParallel > 1 ? [`TP ${tensorParallel}`] : []),
    ...(pipelineParallel > 1 ? [`PP ${pipelineParallel}`] : []),
    ...(dtype === undefined ? [] : [dtype]),
    ...(kvCacheDtype === undefined ? [] : [`KV cache ${kvCacheDtype}`]),
    ...(headDtype === undefined ? [] : [`logits ${headDtype === "model" ? "in the model's dtype" : headDtype}`]),
  ];
  return parts.join(", ");
}

/** What the preflight has found, line by line. */
export function describePreflight({ baseline, noise, sparsest, change, tokens, seconds }: Preflight): string[] {
  const sequences = baseline.sequences.length;
  return [
    `baseline ${formatLoss(baseline.loss)} nats per token; measured again it differs by ${noise.toExponential(1)} (standard error of the mean of ${formatCount(sequences)} sequences)`,
    `${sparsest}: ${formatLossChange(change)}; indexers ran where the letters say: patterns reach the model`,
    `an evaluation: ${formatCount(tokens)} tokens in ${formatDuration(seconds)}, ${formatRate(tokens, seconds)}`,
  ];
}

export function describeEffort(evaluations: number, exact: boolean, seconds: number): string {
  const hours = (evaluations * seconds) / 3600;
  return `the search: ${exact ? "" : "about "}${formatCount(evaluations)} evaluations, ${hours < 0.1 ? formatDuration(evaluations * seconds) : `${hours.toFixed(1)} hours`} at that rate`;
}
