/** A search under way: its journal, its display, and the record of what it has found. */

import process from "node:process";
import { clocks } from "../../base/clock.ts";
import { InputError } from "../../base/errors.ts";
import { sketchOf } from "../../base/ngram-sketch.ts";
import { toolVersion } from "../../base/version.ts";
import {
  type Journal,
  type JournalEntry,
  readJournal,
  requireAgreement,
  requireSameNumbers,
} from "../../formats/journal.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import { PlainDisplay, type SearchDisplay } from "../../report/search/search-display.ts";
import { searchRecord } from "../../report/search/search-record.ts";
import type { PatternEvaluator } from "../../runtime/measurement.ts";
import type { SearchResult } from "../../search/events.ts";
import { ProgressTracker } from "../../search/progress.ts";
import { search } from "../../search/search.ts";
import { journalFingerprint, openEvaluationJournal } from "../arguments/journal-options.ts";
import { whileShowing } from "../console/display.ts";
import { recordedCommand } from "../console/interruption.ts";
import type { Measuring } from "./measuring.ts";
import type { SearchWork } from "./search-work.ts";

/** The journal of this search, and what others have measured that it may take as known. */
export async function openJournals({
  identity,
  set,
  method,
  objective,
  settings,
  source,
  flags,
}: SearchWork): Promise<{ journal: Journal | undefined; reused: JournalEntry[] }> {
  const asked = { strategy: method.strategy.name, objective, ...settings };
  const fingerprint = journalFingerprint(identity, set, source.numbers, asked);
  const reused: { path: string; entries: readonly JournalEntry[] }[] = [];
  for (const path of flags.reuse ?? []) {
    const other = await readJournal(path);
    if (other === undefined) throw new InputError(`Journal "${path}" is empty`);
    requireSameNumbers(path, other.fingerprint, fingerprint);
    reused.push({ path, entries: other.entries });
  }
  const numbers = flags.server === undefined ? flags.dtype : "server";
  requireAgreement(reused, numbers);
  const journal = await openEvaluationJournal(flags, fingerprint);
  if (journal !== undefined) requireAgreement([journal, ...reused], numbers);
  return { journal, reused: reused.flatMap(({ entries }) => entries) };
}

/**
 * Runs the search to its end; every evaluation is in the journal before the next begins.
 * @param keep takes what was found, before anything more is asked about it
 */
export function runSearch(
  work: SearchWork,
  evaluator: PatternEvaluator,
  measuring: Measuring,
  journal: Journal | undefined,
  keep: (result: SearchResult) => Promise<void>,
): Promise<SearchResult> {
  const { method, foreseen, space, targets, set, sequences, repeats, model, terminal } = work;
  const { signal } = terminal;
  const now = clocks.wall;
  const tracker = new ProgressTracker(now());
  const judged = new Set(sequences);
  const shown = {
    inLines: () => {
      if (journal !== undefined) terminal.note(`journal: ${journal.path}; Ctrl-C saves`);
      return new PlainDisplay((line) => terminal.note(line));
    },
    inView: async (stream: NodeJS.WriteStream) => {
      const { openSearchView } = await import("../../tui/search-view.tsx");
      return openSearchView(stream, model.config.name, journal?.path, evaluator.sideBySide);
    },
    tick: (display: SearchDisplay) => {
      const progress = tracker.at(now());
      if (progress !== undefined) display.tick(progress);
    },
    close: (display: SearchDisplay) => display.close(),
  };
  const run = async (display: SearchDisplay): Promise<SearchResult> => {
    for await (const event of search(method, {
      foreseen,
      space,
      targets,
      sequences,
      sources: set.sources.map((source) => source.sequences.filter((index) => judged.has(index))),
      stability: true,
      recall: measuring.recall,
      signal,
      evaluate: measuring.evaluateWith(evaluator),
      repeats,
    })) {
      const progress = tracker.advance(event, now());
      if (event.kind === "evaluation started") measuring.position = { done: event.done, total: event.total };
      if (progress !== undefined) display.show(event, progress);
      if (event.kind === "found") await keep(event.result);
      if (event.kind === "done") return event.result;
    }
    throw new Error("the search ended without a result");
  };
  return whileShowing(terminal, shown, run).finally(() => {
    measuring.position = undefined;
  });
}

/**
 * The pattern file.
 * @param heldOut sequences that were kept out of the search, and are measured by now
 */
export function recordOf(
  result: SearchResult,
  work: SearchWork,
  measuring: Measuring,
  heldOut: readonly number[],
): PatternFile {
  return searchRecord(result, {
    ...work,
    heldOut,
    model: work.identity,
    baseline: work.space.start,
    calibration: calibrationRecord(work),
    tool: { version: toolVersion, ...work.source.tool, command: recordedCommand(process.argv) },
    server: work.source.server?.(),
    entries: measuring.entries,
    losses: measuring.losses,
  });
}

function calibrationRecord({ set, sequences, heldOut }: SearchWork): PatternFile["calibration"] {
  const { source, hash, windows, scoredFrom, sources } = set;
  const judged = new Set(sequences);
  const sumOver = (some: readonly number[], of: (index: number) => number) =>
    some.reduce((total, index) => total + (judged.has(index) ? of(index) : 0), 0);
  const length = (index: number): number => windows[index]?.length ?? 0;
  const plain = sources.every(({ answers }) => !answers) && sources.length === 1;
  return {
    source,
    hash,
    sequences: sequences.length,
    tokens: sumOver(sequences, length),
    held_out_sequences: heldOut.length || undefined,
    ngrams: sketchOf(set.windows),
    sources: plain
      ? undefined
      : sources.map(({ name, weight, answers, seed, sequences: own }) => ({
          source: name,
          weight,
          scored: answers ? ("answers" as const) : ("all" as const),
          sequences: sumOver(own, () => 1),
          scored_tokens: sumOver(own, (index) => length(index) - (scoredFrom[index] ?? 1)),
          seed,
        })),
  };
}
