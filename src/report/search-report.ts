/** What `search` gives: the pattern file's content, and the same as a table. */
import type { PatternFile } from "../formats/pattern-file.ts";
import { fullLayers, parsePattern } from "../pattern/pattern.ts";
import type { LayerExecutions, Measurement } from "../runtime/measurement.ts";
import type { GreedyResult } from "../search/greedy.ts";
import { formatCount, formatDuration, formatLoss, formatLossChange } from "./quantities.ts";
import { formatFields, formatTable } from "./text-table.ts";

export interface SearchContext {
  model: PatternFile["model"];
  calibration: PatternFile["calibration"];
  tool: PatternFile["tool"];
  /** Every evaluation that the result rests on, those of an earlier run included. */
  measurements: Iterable<Measurement>;
}

/** The pattern file of a finished search. */
export function searchRecord(result: GreedyResult<Measurement>, context: SearchContext): PatternFile {
  const cost = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0, seconds: 0 };
  for (const { executions, seconds } of context.measurements) {
    cost.body += executions.body;
    cost.indexer += executions.indexer;
    cost.naiveBody += executions.naiveBody;
    cost.naiveIndexer += executions.naiveIndexer;
    cost.seconds += seconds;
  }
  return {
    schema_version: 1,
    index_topk_pattern: result.pattern,
    model: context.model,
    calibration: context.calibration,
    baseline_loss: result.baseline.loss,
    loss: result.final.loss,
    trajectory: result.steps.map(({ pattern, flippedLayer, evaluation, candidates }) => ({
      index_topk_pattern: pattern,
      flipped_layer: flippedLayer,
      loss: evaluation.loss,
      standard_error: evaluation.standardError,
      candidates,
    })),
    search: {
      strategy: "greedy",
      evaluations: result.evaluations,
      layer_executions: executionsRecord(cost),
      seconds: cost.seconds,
    },
    tool: context.tool,
  };
}

/** Layer executions in the words of the files. */
export function executionsRecord({
  body,
  indexer,
  naiveBody,
  naiveIndexer,
}: LayerExecutions): PatternFile["search"]["layer_executions"] {
  return { body, indexer, naive_body: naiveBody, naive_indexer: naiveIndexer };
}

export function formatSearchReport(file: PatternFile): string {
  const { search, trajectory } = file;
  const { body, naive_body: naiveBody } = search.layer_executions;
  const columns = [
    { title: "Step", align: "right" },
    { title: "Shared", align: "right" },
    { title: "Full", align: "right" },
    { title: "Loss", align: "right" },
    { title: "Change", align: "right" },
    { title: "Pattern" },
  ] as const;
  const steps = trajectory.map((step, index) => [
    String(index + 1),
    String(step.flipped_layer),
    String(countFull(step.index_topk_pattern)),
    formatLoss(step.loss),
    formatLossChange(step.loss - file.baseline_loss),
    step.index_topk_pattern,
  ]);
  const fields = formatFields([
    ["Pattern", file.index_topk_pattern],
    ["Full layers", `${countFull(file.index_topk_pattern)} of ${file.model.layers}`],
    [
      "Loss",
      `${formatLoss(file.loss)} nats per token, ${formatLossChange(file.loss - file.baseline_loss)} against every indexer`,
    ],
    ["Standard error", formatLoss(trajectory.at(-1)?.standard_error ?? 0)],
    ["Evaluations", `${formatCount(search.evaluations)} in ${formatDuration(search.seconds)}`],
    ["Layers run", `${formatCount(body)} of the ${formatCount(naiveBody)} that full forward passes would run`],
  ]);
  return steps.length === 0 ? fields : `${formatTable(columns, steps)}\n\n${fields}`;
}

function countFull(pattern: string): number {
  return fullLayers(parsePattern(pattern)).length;
}
