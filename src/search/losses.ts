/**
 * What is known of patterns: the objective (NLL, or KL from the model's own pattern) on each sequence, with statistics over
 * them. Between sequences losses spread
 * by a nat, between patterns by a thousandth: whatever is compared here is compared sequence by sequence.
 */
import { type Estimate, estimate, pairedDifference, type WeightedLoss } from "../base/estimate.ts";
import { sum } from "../base/sum.ts";
import type { Pattern } from "../pattern/pattern.ts";

/** What is known of one pattern. */
export interface PatternEvaluation {
  /**
   * Nats per token, token-weighted; across the worst source, the start's and the change there. Of a pattern that only some sequences have been measured on: the start's loss on all
   * of them and the difference on those.
   */
  loss: number;
  /** Of `loss` as a mean over sequences. It says how far another text may be, not how sure a comparison is. */
  standardError: number | null;
  /** Paired, against the search's start: `loss` less the start's, and the standard error of that difference. */
  change: number;
  changeError: number | null;
  /** Sequences measured; `complete` if that is all of them. */
  sequences: number;
  complete: boolean;
}

/** What is known already of a pattern on a sequence. @param repeat which measurement after the first */
export type Recall = (pattern: Pattern, index: number, repeat?: number) => WeightedLoss | undefined;

/** How several sources of text count together: by their weighted mean, or by the one on which a pattern loses most. */
export type Across = "mean" | "worst";

export class LossTable {
  /** Indices of the search's sequences. */
  readonly sequences: readonly number[];
  /** The same by the source of text that they are of. */
  readonly sources: readonly (readonly number[])[];
  readonly across: Across;
  readonly #start: Pattern;
  readonly #losses = new Map<string, Map<number, WeightedLoss>>();
  /** Of what was measured more than once, by pattern and sequence: how often, and the squared deviations from the mean. */
  readonly #repeats = new Map<string, { count: number; squares: number }>();

  /** @param sources indices of the sequences of each source of text; all of one by default */
  constructor(
    sequences: readonly number[],
    start: Pattern,
    {
      sources = [sequences],
      across = "mean",
    }: { sources?: readonly (readonly number[])[]; across?: Across | undefined } = {},
  ) {
    this.sequences = sequences;
    this.sources = sources;
    this.across = across;
    this.#start = start;
  }

  /** Those of the indices that are not known of a pattern. */
  missing(pattern: Pattern, indices: readonly number[]): number[] {
    const known = this.#losses.get(pattern);
    return known === undefined ? [...indices] : indices.filter((index) => !known.has(index));
  }

  isComplete(pattern: Pattern): boolean {
    return this.missing(pattern, this.sequences).length === 0;
  }

  /** Losses of a pattern that was measured on every sequence, in the order of `sequences`. */
  perSequence(pattern: Pattern): readonly WeightedLoss[] | undefined {
    return this.isComplete(pattern) ? this.#known(pattern).map(({ loss }) => loss) : undefined;
  }

  /**
   * What a pattern changes, of what it changes on each source.
   * @param weights shares of the sources in all tokens
   */
  combine(changes: readonly number[], weights: readonly number[]): number {
    if (this.across === "worst") return Math.max(...changes);
    return changes.reduce((total, change, source) => total + change * (weights[source] ?? 0), 0);
  }

  /** Indices of the sequences that a pattern was measured on. */
  measuredSequences(pattern: Pattern): number[] {
    return this.#known(pattern).map(({ index }) => index);
  }

  /** Whether anything is known of a pattern. */
  isMeasured(pattern: Pattern): boolean {
    return this.#losses.has(pattern);
  }

  /** What one sequence adds to the sum over tokens; 0 if it is not known. */
  weightedLoss(pattern: Pattern, index: number): number {
    const known = this.#of(pattern, index);
    return known === undefined ? 0 : known.loss * known.tokens;
  }

  add(pattern: Pattern, index: number, loss: WeightedLoss): void {
    const known = this.#losses.get(pattern) ?? new Map<number, WeightedLoss>();
    this.#losses.set(pattern, known.set(index, loss));
  }

  /** One more measurement of a sequence: its loss becomes the mean of all. */
  addAgain(pattern: Pattern, index: number, loss: WeightedLoss): void {
    const before = this.#of(pattern, index);
    if (before === undefined) throw new Error(`sequence ${index} of ${pattern} has not been measured`);
    const key = `${pattern} ${index}`;
    const { count, squares } = this.#repeats.get(key) ?? { count: 1, squares: 0 };
    const mean = before.loss + (loss.loss - before.loss) / (count + 1);
    this.#repeats.set(key, {
      count: count + 1,
      squares: squares + (loss.loss - before.loss) * (loss.loss - mean),
    });
    this.add(pattern, index, { ...before, loss: mean });
  }

  /** How often a pattern was measured: the fewest over its sequences. */
  measurements(pattern: Pattern): number {
    const counts = this.#known(pattern).map(({ index }) => this.#repeats.get(`${pattern} ${index}`)?.count ?? 1);
    return counts.length === 0 ? 0 : Math.min(...counts);
  }

  /** Standard error of one measurement's mean over the sequences, from how it repeats; 0 if nothing was repeated. */
  noise(pattern: Pattern): number {
    const known = this.#known(pattern);
    const tokens = sum(known.map(({ loss }) => loss.tokens));
    const variances = known.map(({ index, loss }) => {
      const { count, squares } = this.#repeats.get(`${pattern} ${index}`) ?? { count: 1, squares: 0 };
      return count < 2 ? 0 : (loss.tokens / tokens) ** 2 * (squares / (count - 1));
    });
    return Math.sqrt(sum(variances));
  }

  /** Token-weighted sum of the known losses over all tokens: a lower bound of the loss if no term is negative. */
  lowerBound(pattern: Pattern): number {
    const bounds = this.#judged.map((sequences) => {
      const tokens = sum(sequences.map((index) => this.#of(this.#start, index)?.tokens ?? 0));
      return sum(sequences.map((index) => this.weightedLoss(pattern, index))) / tokens;
    });
    return Math.max(...bounds);
  }

  /**
   * Difference of two patterns over the sequences that both were measured on: of their means; or of the changes on the
   * source where each loses most, whose errors are independent if these are two sources.
   */
  difference(pattern: Pattern, from: Pattern): Estimate {
    if (this.across === "mean") return this.#difference(pattern, from, this.sequences);
    const [own, other] = [this.#worst(pattern), this.#worst(from)];
    if (own === undefined || other === undefined) return this.#difference(pattern, from, this.sequences);
    if (own.source === other.source) return this.#difference(pattern, from, own.source);
    const [error, otherError] = [own.change.standardError, other.change.standardError];
    return {
      mean: own.change.mean - other.change.mean,
      standardError: error === null || otherError === null ? null : Math.hypot(error, otherError),
      sequences: own.change.sequences + other.change.sequences,
    };
  }

  /** The source on which a pattern loses most against the start, of those that it was measured on. */
  #worst(pattern: Pattern): { source: readonly number[]; change: Estimate } | undefined {
    const changes = this.sources
      .map((source) => ({ source, change: this.#difference(pattern, this.#start, source) }))
      .filter(({ change }) => change.sequences > 0);
    return changes.reduce<(typeof changes)[number] | undefined>(
      (worst, one) => (worst === undefined || one.change.mean > worst.change.mean ? one : worst),
      undefined,
    );
  }

  /** Sequences that are judged together. */
  get #judged(): readonly (readonly number[])[] {
    return this.across === "worst" ? this.sources : [this.sequences];
  }

  /** Paired, over those of the sequences that both were measured on. */
  #difference(pattern: Pattern, from: Pattern, sequences: readonly number[]): Estimate {
    const both = this.#known(pattern, sequences).flatMap(({ index, loss }) => {
      const other = this.#of(from, index);
      return other === undefined ? [] : [{ loss, other }];
    });
    return pairedDifference(
      both.map(({ loss }) => loss),
      both.map(({ other }) => other),
    );
  }

  /** @throws Error for a pattern or a start that nothing is known of */
  evaluation(pattern: Pattern): PatternEvaluation {
    const known = this.#known(pattern).map(({ loss }) => loss);
    if (known.length === 0) throw new Error(`nothing is known of ${pattern}`);
    const complete = known.length === this.sequences.length;
    const change = pattern === this.#start ? { mean: 0, standardError: 0 } : this.#change(pattern);
    const own = estimate(known);
    const start =
      complete && this.across === "mean" ? undefined : estimate(this.#known(this.#start).map(({ loss }) => loss));
    return {
      loss: start === undefined ? own.mean : start.mean + change.mean,
      standardError: own.standardError,
      // Of means, not a mean of differences: the same number as the two losses that a reader sees.
      change: start === undefined ? own.mean - this.#startLoss() : change.mean,
      changeError: change.standardError,
      sequences: known.length,
      complete,
    };
  }

  #change(pattern: Pattern): Estimate {
    const worst = this.across === "worst" ? this.#worst(pattern) : undefined;
    return worst?.change ?? this.#difference(pattern, this.#start, this.sequences);
  }

  #startLoss(): number {
    return estimate(this.#known(this.#start).map(({ loss }) => loss)).mean;
  }

  #of(pattern: Pattern, index: number): WeightedLoss | undefined {
    return this.#losses.get(pattern)?.get(index);
  }

  #known(pattern: Pattern, sequences = this.sequences): { index: number; loss: WeightedLoss }[] {
    const known = this.#losses.get(pattern);
    if (known === undefined) return [];
    return sequences.flatMap((index) => {
      const loss = known.get(index);
      return loss === undefined ? [] : [{ index, loss }];
    });
  }
}
