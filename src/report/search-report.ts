/** What `search` gives: the pattern file's content, and the same as a table. */
import type { PatternFile } from "../formats/pattern-file.ts";
import { fullLayers, parsePattern } from "../pattern/pattern.ts";
import type { LayerExecutions, Measurement } from "../runtime/measurement.ts";
import type { SearchResult, SecondLook } from "../search/events.ts";
import type { Strategy } from "../search/strategy.ts";
import { formatCount, formatDuration, formatLoss, formatLossChange } from "./quantities.ts";
import { formatFields, formatTable } from "./text-table.ts";

export interface SearchContext {
  strategy: Strategy;
  model: PatternFile["model"];
  calibration: PatternFile["calibration"];
  tool: PatternFile["tool"];
  /** Every evaluation that the result rests on, those of an earlier run included. */
  measurements: Iterable<Measurement>;
}

type OtherStep = NonNullable<PatternFile["search"]["steps"]>[number];

/** Flipped layers of a step that are named one by one. */
const LISTED_FLIPS = 4;

/** The pattern file of a finished search. */
export function searchRecord(result: SearchResult<Measurement>, context: SearchContext): PatternFile {
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
    trajectory: isGreedy(context.strategy) ? trajectory(result) : [],
    search: {
      strategy: context.strategy.name,
      evaluations: result.evaluations,
      layer_executions: executionsRecord(cost),
      seconds: cost.seconds,
      ...settingsRecord(context.strategy),
      ...(isGreedy(context.strategy) ? {} : { steps: otherSteps(result) }),
      ...(result.secondLook === undefined ? {} : { second_look: secondLookRecord(result.secondLook) }),
    },
    tool: context.tool,
  };
}

/** Only its steps are nested, one more Shared layer each, as readers expect of a trajectory. */
function isGreedy({ name, swaps }: Strategy): boolean {
  return name === "greedy" && swaps === undefined;
}

function trajectory({ steps }: SearchResult<Measurement>): PatternFile["trajectory"] {
  return steps.map(({ pattern, flippedLayer, evaluation, candidates }) => ({
    index_topk_pattern: pattern,
    flipped_layer: flippedLayer,
    loss: evaluation.loss,
    standard_error: evaluation.standardError,
    candidates: candidates.map(({ layer, loss }) => ({ layer, loss })),
  }));
}

function otherSteps({ steps }: SearchResult<Measurement>): PatternFile["search"]["steps"] {
  return steps.map(({ pattern, flippedLayer, otherLayers = [], evaluation, candidates }) => ({
    index_topk_pattern: pattern,
    flipped_layers: [flippedLayer, ...otherLayers],
    loss: evaluation.loss,
    standard_error: evaluation.standardError,
    candidates: candidates.length,
  }));
}

function settingsRecord(strategy: Strategy): Pick<PatternFile["search"], "settings"> {
  const beam = strategy.name === "beam" ? { beam_width: strategy.width, direction: strategy.direction } : {};
  const settings = { ...beam, ...(strategy.swaps === undefined ? {} : { swaps: true }) };
  return Object.keys(settings).length === 0 ? {} : { settings };
}

function secondLookRecord({ firstPattern, firstLoss, ...rest }: SecondLook): PatternFile["search"]["second_look"] {
  return { first_pattern: firstPattern, first_loss: firstLoss, ...rest };
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
    { title: search.steps === undefined ? "Shared" : "Flipped", align: "right" },
    { title: "Full", align: "right" },
    { title: "Loss", align: "right" },
    { title: "Change", align: "right" },
    { title: "Pattern" },
  ] as const;
  const steps = (search.steps ?? trajectory).map((step, index) => [
    String(index + 1),
    "flipped_layer" in step ? String(step.flipped_layer) : formatFlips(step),
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
    ["Standard error", formatLoss((search.steps ?? trajectory).at(-1)?.standard_error ?? 0)],
    ...(search.steps === undefined ? [] : [["Strategy", formatStrategy(search)] as const]),
    ...(search.second_look === undefined ? [] : [["Second look", formatSecondLook(search.second_look)] as const]),
    ["Evaluations", `${formatCount(search.evaluations)} in ${formatDuration(search.seconds)}`],
    ["Layers run", `${formatCount(body)} of the ${formatCount(naiveBody)} that full forward passes would run`],
  ]);
  return steps.length === 0 ? fields : `${formatTable(columns, steps)}\n\n${fields}`;
}

/** `3F`, `2S 7F`; an exhaustive search has one step over many layers. */
function formatFlips({ flipped_layers: layers, index_topk_pattern: pattern }: OtherStep): string {
  if (layers.length > LISTED_FLIPS) return `${layers.length} layers`;
  return layers.map((layer) => `${layer}${pattern[layer]}`).join(" ");
}

function formatStrategy({ strategy, settings }: PatternFile["search"]): string {
  return [
    strategy,
    ...(settings?.beam_width === undefined ? [] : [`width ${settings.beam_width}`]),
    ...(settings?.direction === undefined ? [] : [settings.direction]),
    ...(settings?.swaps === true ? ["swaps"] : []),
  ].join(", ");
}

function formatSecondLook(look: NonNullable<PatternFile["search"]["second_look"]>): string {
  const { first_pattern: pattern, first_loss: loss, gain, evaluations, forward, finished } = look;
  const found = gain === 0 ? "nothing better than" : `${formatLoss(gain)} nats less than`;
  const extent = `${forward ? "forward beam and swaps" : "swaps only"}${finished ? "" : " as far as the budget went"}`;
  return `${found} greedy's ${pattern} at ${formatLoss(loss)}; ${formatCount(evaluations)} evaluations, ${extent}`;
}

function countFull(pattern: string): number {
  return fullLayers(parsePattern(pattern)).length;
}
