/** Measures patterns for a search: asks the evaluator, writes the journal before it continues, remembers all of it. */

import type { WeightedLoss } from "../../base/estimate.ts";
import { counted } from "../../base/quantities.ts";
import type { Journal, JournalEntry, KnownSequences } from "../../formats/journal.ts";
import { addEntry, knownSequences } from "../../formats/journal.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { executionsRecord } from "../../report/search/search-record.ts";
import type {
  EvaluateContext,
  Measurement,
  Objective,
  PatternEvaluator,
  PatternRequest,
} from "../../runtime/measurement.ts";
import type { Evaluate } from "../../search/events.ts";
import type { Recall } from "../../search/losses.ts";
import type { Terminal } from "../console/terminal.ts";

export class Measuring {
  /** Of this run and of the one that it continues: what the journal holds. */
  readonly entries: JournalEntry[];
  /** Where a search is, for who reads the journal meanwhile: patterns with the one at work, and those foreseen. */
  position: { done: number; total: number } | undefined;
  readonly #journal: Journal | undefined;
  readonly #reused: readonly JournalEntry[];
  readonly #objective: Objective;
  readonly #factor: (index: number) => number;
  /** The same entries by pattern and sequence; those of repeated measurements by `repetitionKey`. */
  readonly #memory: KnownSequences;

  /**
   * @param reused entries of other searches
   * @param factor what a sequence's tokens are multiplied by, where several sources are weighed
   */
  constructor(
    journal: Journal | undefined,
    reused: readonly JournalEntry[],
    objective: Objective,
    factor: (index: number) => number = () => 1,
  ) {
    this.#journal = journal;
    this.#reused = reused;
    this.#objective = objective;
    this.#factor = factor;
    this.entries = [...(journal?.entries ?? [])];
    this.#memory = knownSequences([...this.entries, ...reused].map(apart));
  }

  /** Says what the journal held already. */
  tellResumed(terminal: Terminal): void {
    const resumed = new Set(this.#journal?.entries.map(({ pattern }) => pattern)).size;
    if (resumed > 0) terminal.note(`resuming: ${counted(resumed, "pattern")} already in ${this.#journal?.path}`);
  }

  /** What is known of every pattern: means, where measurements were repeated. */
  get losses(): KnownSequences {
    return knownSequences([...this.entries, ...this.#reused]);
  }

  /** What is known of one pattern; of those that are measured once. */
  of(pattern: Pattern): ReadonlyMap<number, JournalEntry["sequences"][number]> | undefined {
    return this.#memory.get(pattern);
  }

  /** What a search may take as known. */
  readonly recall: Recall = (pattern, index, repeat) => {
    const sequence = this.#memory.get(repeat === undefined ? pattern : repetitionKey(pattern, repeat))?.get(index);
    return sequence === undefined ? undefined : this.#judged(sequence);
  };

  /** What a search takes as its evaluator. */
  evaluateWith(evaluator: PatternEvaluator): Evaluate {
    const measure = this.#measure.bind(this);
    const judged = (sequence: JournalEntry["sequences"][number]): WeightedLoss => {
      const loss = this.#judged(sequence);
      if (loss === undefined) throw new Error("the evaluator returned no KL");
      return loss;
    };
    return async function* (requests, context) {
      for await (const measured of measure(evaluator, requests, context)) yield measured.map(judged);
    };
  }

  /** Those of the patterns that are not known on all of the sequences. */
  incomplete(patterns: readonly Pattern[], sequences: readonly number[], needs: "loss" | "kl"): Pattern[] {
    return patterns.filter((pattern) => this.#missing(pattern, sequences, needs).length > 0);
  }

  /** Measures those of the sequences that are not known yet, for a report. */
  async complete(
    evaluator: PatternEvaluator,
    patterns: readonly Pattern[],
    sequences: readonly number[],
    needs: "loss" | "kl",
    { base, signal }: { base?: Pattern; signal: AbortSignal },
  ): Promise<void> {
    const requests = patterns
      .map((pattern) => ({ pattern, sequences: this.#missing(pattern, sequences, needs), base }))
      .filter((request) => request.sequences.length > 0);
    for await (const _ of this.#measure(evaluator, requests, { signal }));
  }

  /** Every measurement is in the journal before the next one is asked for. */
  async *#measure(
    evaluator: PatternEvaluator,
    requests: readonly PatternRequest[],
    { repeat, ...context }: EvaluateContext & { repeat?: number | undefined },
  ): AsyncGenerator<JournalEntry["sequences"]> {
    let place = 0;
    for await (const measurement of evaluator.evaluateAll(requests, context)) {
      yield await this.#record(measurement, requests[place++]?.sequences ?? [], repeat);
    }
  }

  async #record(
    measurement: Measurement,
    sequences: readonly number[],
    repeat?: number,
  ): Promise<JournalEntry["sequences"]> {
    const entry: JournalEntry = {
      pattern: measurement.pattern,
      sequences: measurement.sequences.map((sequence, at) => ({ index: sequences[at] ?? 0, ...sequence })),
      repeat,
      seconds: measurement.seconds,
      executions: executionsRecord(measurement.executions),
      position: this.position,
    };
    await this.#journal?.append(entry);
    this.entries.push(entry);
    addEntry(this.#memory, apart(entry));
    return entry.sequences;
  }

  #missing(pattern: Pattern, sequences: readonly number[], needs: "loss" | "kl"): number[] {
    const known = this.#memory.get(pattern);
    return sequences.filter((index) => known?.get(index)?.[needs] === undefined);
  }

  #judged({ index, loss, kl, tokens }: JournalEntry["sequences"][number]): WeightedLoss | undefined {
    const judged = this.#objective === "kl" ? kl : loss;
    return judged === undefined ? undefined : { loss: judged, tokens: tokens * this.#factor(index) };
  }
}

/** A repeated measurement as one of a pattern of its own: a search takes the mean itself, and asks for each. */
function apart({ repeat, ...entry }: JournalEntry): JournalEntry {
  return repeat === undefined ? entry : { ...entry, pattern: repetitionKey(entry.pattern, repeat) };
}

function repetitionKey(pattern: string, repeat: number): Pattern {
  return `${pattern}#${repeat}` as Pattern;
}
