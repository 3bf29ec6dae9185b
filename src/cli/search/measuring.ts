/** Measures patterns for a search: asks the evaluator, writes the journal before it continues, remembers all of it. */

import type { WeightedLoss } from "../../base/estimate.ts";
import type { Journal, JournalEntry, KnownSequences } from "../../formats/journal.ts";
import { addEntry, knownSequences } from "../../formats/journal.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { executionsRecord } from "../../report/search/search-report.ts";
import type { EvaluateOptions, Measurement, Objective, PatternEvaluator } from "../../runtime/measurement.ts";
import type { Evaluate, PatternRequest } from "../../search/events.ts";
import type { KnownLosses } from "../../search/losses.ts";
import { repetitionKey } from "../../search/trials.ts";

export class Measuring {
  /** Of this run and of the one that it continues. */
  readonly entries: JournalEntry[];
  readonly losses: KnownSequences;
  /** What the search may take as known. */
  readonly known: KnownLosses;
  /** Where a search is, for who reads the journal meanwhile: evaluations before the next one, and those foreseen. */
  position: { done: number; total: number } | undefined;
  readonly #journal: Journal | undefined;
  readonly #objective: Objective;
  readonly #factor: (index: number) => number;

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
    this.#objective = objective;
    this.#factor = factor;
    this.entries = [...(journal?.entries ?? [])];
    this.losses = knownSequences([...this.entries, ...reused]);
    // A copy: what this run measures is no memory of an earlier one.
    const first = knownSequences([...this.entries, ...reused].filter(({ repeat }) => repeat === undefined));
    const repeats = [...this.entries, ...reused].flatMap(({ pattern, repeat, sequences }) =>
      repeat === undefined
        ? []
        : [[repetitionKey(pattern, repeat), new Map(sequences.map((one) => [one.index, one]))] as const],
    );
    this.known = new Map(
      [...first, ...repeats].map(([pattern, sequences]) => [
        pattern,
        new Map(
          [...sequences].flatMap(([index, sequence]) => {
            const loss = this.#judged(sequence);
            return loss === undefined ? [] : [[index, loss] as const];
          }),
        ),
      ]),
    );
  }

  /** What a search takes as its evaluator. */
  evaluateWith(evaluator: PatternEvaluator): Evaluate {
    const measure = this.#measureAll.bind(this);
    const judged = this.#judged.bind(this);
    return async function* (requests, context) {
      for await (const measured of measure(evaluator, requests, context)) {
        yield measured.map((sequence) => {
          const loss = judged(sequence);
          if (loss === undefined) throw new Error("the evaluator returned no KL");
          return loss;
        });
      }
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
    { base, signal }: { base?: Pattern; signal?: AbortSignal },
  ): Promise<void> {
    const requests = patterns
      .map((pattern) => ({
        pattern,
        sequences: this.#missing(pattern, sequences, needs),
        ...(base === undefined ? {} : { base }),
      }))
      .filter((request) => request.sequences.length > 0);
    let place = 0;
    for await (const measurement of evaluator.evaluateAll(requests, signal === undefined ? {} : { signal })) {
      await this.#record(measurement, requests[place++]?.sequences ?? []);
    }
  }

  async measure(
    evaluator: PatternEvaluator,
    pattern: Pattern,
    sequences: readonly number[],
    options: EvaluateOptions = {},
  ): Promise<JournalEntry["sequences"]> {
    return await this.#record(await evaluator.evaluate(pattern, { ...options, sequences }), sequences);
  }

  /** Every measurement is in the journal before the next one is asked for. */
  async *#measureAll(
    evaluator: PatternEvaluator,
    requests: readonly PatternRequest[],
    { repeat, ...context }: Parameters<Evaluate>[1],
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
      ...(repeat === undefined ? {} : { repeat }),
      seconds: measurement.seconds,
      executions: executionsRecord(measurement.executions),
      ...(this.position === undefined
        ? {}
        : { position: { done: this.position.done + 1, total: this.position.total } }),
    };
    await this.#journal?.append(entry);
    this.entries.push(entry);
    addEntry(this.losses, entry);
    return entry.sequences;
  }

  #missing(pattern: Pattern, sequences: readonly number[], needs: "loss" | "kl"): number[] {
    const known = this.losses.get(pattern);
    return sequences.filter((index) => known?.get(index)?.[needs] === undefined);
  }

  #judged({ index, loss, kl, tokens }: JournalEntry["sequences"][number]): WeightedLoss | undefined {
    const judged = this.#objective === "kl" ? kl : loss;
    return judged === undefined ? undefined : { loss: judged, tokens: tokens * this.#factor(index) };
  }
}
