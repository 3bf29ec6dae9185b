/** The pattern file of a finished search. */

import type { JournalEntry, KnownSequences } from "../../formats/journal.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import { countFull, type Pattern } from "../../pattern/pattern.ts";
import type { LayerExecutions } from "../../runtime/measurement.ts";
import type { Found, Refinement, SearchResult, SearchStep } from "../../search/events.ts";
import { knee } from "../../search/frontier.ts";
import type { PatternEvaluation } from "../../search/losses.ts";
import type { SearchMethod } from "../../search/strategy.ts";
import { lossDifference, type PatternLoss, patternLoss } from "./search-losses.ts";

export interface SearchContext {
  method: SearchMethod;
  objective: NonNullable<PatternFile["search"]["objective"]>;
  settings: Record<string, string | number | boolean>;
  model: PatternFile["model"];
  /** The model's own pattern. */
  baseline: Pattern;
  calibration: PatternFile["calibration"];
  set: { sources: readonly { name: string; sequences: readonly number[] }[] };
  /** What the tokens of some sequences are multiplied by, so that each source has its weight. */
  weigh: (indices: readonly number[]) => (index: number) => number;
  tool: PatternFile["tool"];
  /** The engine that measured, where it was not this tool. */
  server?: PatternFile["server"];
  /** Indices of the sequences that the search judged by, and of those kept out of it. */
  sequences: readonly number[];
  heldOut: readonly number[];
  /** All that the result rests on, an earlier run's part included. */
  entries: readonly JournalEntry[];
  losses: KnownSequences;
}

type FoundRecord = NonNullable<PatternFile["patterns"]>[number];
type StepRecord = NonNullable<FoundRecord["steps"]>[number];

/** The pattern file of a finished search. */
export function searchRecord(result: SearchResult, context: SearchContext): PatternFile {
  const { method, objective, settings, losses, baseline, sequences, weigh } = context;
  const factor = weigh(sequences);
  const { strategy } = method;
  const last = result.patterns.at(-1);
  if (last === undefined) throw new Error("a search without patterns");
  // Readers expect nested steps of a trajectory, one more Shared layer each.
  const nested = strategy.isNested;
  const bend = knee(
    result.frontier.map(({ pattern, evaluation }) => ({ size: countFull(pattern), loss: evaluation.loss })),
  );
  return {
    schema_version: 1,
    index_topk_pattern: last.pattern,
    model: context.model,
    calibration: context.calibration,
    baseline_loss: patternLoss(losses, baseline, baseline, sequences, factor).loss.mean,
    loss: patternLoss(losses, last.pattern, baseline, sequences, factor).loss.mean,
    trajectory: nested ? last.steps.map((step) => trajectoryStep(step, sequences.length)) : [],
    patterns: result.patterns.map((found) => foundRecord(found, result, context, nested)),
    knee: bend,
    search: {
      strategy: strategy.name,
      objective,
      settings,
      optimum: result.isOptimum === true || undefined,
      stability_unknown: typeof result.stability === "string" ? result.stability : undefined,
      evaluations: result.evaluations,
      sequence_evaluations: result.sequenceEvaluations,
      frontier: result.frontier.map(({ pattern, evaluation }) => ({
        full_layers: countFull(pattern),
        index_topk_pattern: pattern,
        loss: evaluation.loss,
        change: evaluation.change,
        change_error: evaluation.changeError,
        sequences: partOf(evaluation),
      })),
      layer_executions: sumExecutions(context.entries),
      seconds: context.entries.reduce((total, { seconds }) => total + seconds, 0),
    },
    server: context.server,
    tool: context.tool,
  };
}

function trajectoryStep(step: SearchStep, sequences: number): PatternFile["trajectory"][number] {
  return {
    ...stepRecord(step),
    flipped_layer: step.flipped[0] ?? 0,
    candidates: step.candidates.map(({ flipped, loss, changeError, sequences: measured, dropped }) => ({
      layer: flipped[0] ?? 0,
      loss,
      change_error: changeError,
      sequences: measured === sequences ? undefined : measured,
      dropped: dropped || undefined,
    })),
  };
}

function otherStep(step: SearchStep): StepRecord {
  return { ...stepRecord(step), flipped_layers: [...step.flipped], candidates: step.candidates.length };
}

function stepRecord({ pattern, evaluation, lead, repetition }: SearchStep) {
  return {
    index_topk_pattern: pattern,
    loss: evaluation.loss,
    standard_error: evaluation.standardError,
    change: evaluation.change,
    change_error: evaluation.changeError,
    sequences: partOf(evaluation),
    lead: lead && {
      over: lead.over,
      nats: lead.mean,
      standard_error: lead.standardError,
      sequences: lead.sequences,
      within_noise: lead.withinNoise,
    },
    repetition,
  };
}

/** Sequences of an evaluation that is not over all of them. */
function partOf({ complete, sequences }: PatternEvaluation): number | undefined {
  return complete ? undefined : sequences;
}

function foundRecord(found: Found, result: SearchResult, context: SearchContext, nested: boolean): FoundRecord {
  const { losses, baseline, sequences, heldOut, weigh } = context;
  const { pattern, steps, foundBy } = found;
  const { loss, change, kl } = patternLoss(losses, pattern, baseline, sequences, weigh(sequences));
  const refined = result.refinements?.find(({ retain }) => retain === countFull(pattern));
  return {
    full_layers: countFull(pattern),
    index_topk_pattern: pattern,
    loss: loss.mean,
    standard_error: loss.standardError,
    change: change.mean,
    change_error: change.standardError,
    kl: kl?.mean,
    kl_error: kl?.standardError,
    found_by: foundBy,
    steps: nested || steps.length === 0 ? undefined : steps.map(otherStep),
    sources: sourceRecords(pattern, context),
    held_out:
      heldOut.length === 0 ? undefined : heldOutRecord(patternLoss(losses, pattern, baseline, heldOut, weigh(heldOut))),
    stability: stabilityRecord(countFull(pattern), result),
    repetition: found.repetition,
    second_look: refined && refinementRecord(refined, pattern, context),
  };
}

function stabilityRecord(size: number, { stability }: SearchResult): FoundRecord["stability"] {
  const own = typeof stability === "string" ? undefined : stability?.find(({ retain }) => retain === size);
  if (own === undefined) return undefined;
  const { resamples, agreement, full, needed, tried } = own;
  return { resamples, agreement, full: [...full], sequences_needed: needed, sequences_tried: tried };
}

/** What a pattern changes on each source, where there are several. */
function sourceRecords(pattern: Pattern, { set, losses, baseline, sequences }: SearchContext): FoundRecord["sources"] {
  if (set.sources.length === 1) return undefined;
  const judged = new Set(sequences);
  return set.sources.map(({ name, sequences: all }) => {
    const own = all.filter((index) => judged.has(index));
    const { loss, change } = patternLoss(losses, pattern, baseline, own);
    return { source: name, loss: loss.mean, change: change.mean, change_error: change.standardError };
  });
}

function heldOutRecord({ loss, change, kl }: PatternLoss): NonNullable<FoundRecord["held_out"]> {
  return {
    loss: loss.mean,
    change: change.mean,
    change_error: change.standardError,
    kl: kl?.mean,
    kl_error: kl?.standardError,
  };
}

function refinementRecord(
  { firstPattern, firstLoss, gain, tried }: Refinement,
  pattern: Pattern,
  { losses, heldOut, weigh }: SearchContext,
): NonNullable<FoundRecord["second_look"]> {
  const out = heldOut.length === 0 ? undefined : lossDifference(losses, firstPattern, pattern, heldOut, weigh(heldOut));
  return {
    first_pattern: firstPattern,
    first_loss: firstLoss,
    gain: gain.mean,
    gain_error: gain.standardError,
    tried,
    held_out_gain: out?.mean,
    held_out_gain_error: out?.standardError,
  };
}

/** As files spell it. */
export function executionsRecord({
  body,
  indexer,
  naiveBody,
  naiveIndexer,
  rows,
  loads,
}: LayerExecutions): JournalEntry["executions"] {
  return {
    body,
    indexer,
    naive_body: naiveBody,
    naive_indexer: naiveIndexer,
    rows,
    loads,
  };
}

function sumExecutions(entries: readonly JournalEntry[]): JournalEntry["executions"] {
  const total = { body: 0, indexer: 0, naive_body: 0, naive_indexer: 0 };
  const rows = { run: 0, prefix: 0, invariant: 0, kept: 0 };
  const loads = { passes: 0, layers: 0, bytes: 0, seconds: 0 };
  for (const { executions } of entries) {
    for (const key of Object.keys(loads) as (keyof typeof loads)[]) loads[key] += executions.loads?.[key] ?? 0;
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += executions[key];
    for (const key of Object.keys(rows) as (keyof typeof rows)[]) rows[key] += executions.rows?.[key] ?? 0;
  }
  return { ...total, rows, loads: loads.passes === 0 ? undefined : loads };
}
