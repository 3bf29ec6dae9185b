/** How indexers are trained: the numbers of a run, and what follows from them for each step. */
import { Random } from "../base/random.ts";
import { type Pattern, parsePattern } from "../pattern/pattern.ts";

export interface Recipe {
  steps: number;
  /** Highest learning rate. */
  rate: number;
  /** Sequences of a step. */
  batch: number;
  /** Every how many positions there is a query row; another residue class each step. */
  stride: number;
  /** Steps over which the rate rises. */
  warmUp: number;
  /** Share of the steps, the first ones, whose targets cover all visible keys; then only those that the indexer selects. */
  dense: number;
  /** Gradients are scaled down to this norm, all trained indexers together. */
  clip: number;
  /** The layers whose attention an indexer learns: all that it serves, or its own. */
  targets: "centroid" | "own";
  seed: number;
}

/**
 * Measured on the demo (docs/log.md): at a rate of 1e-3 400 steps stop half-way, 3e-3 gets there; dense steps alone leave
 * the edge of the selection untrained, sparse ones alone never see what the indexer does not select.
 */
export const defaultRecipe: Omit<Recipe, "seed"> = {
  steps: 400,
  rate: 3e-3,
  batch: 16,
  stride: 4,
  warmUp: 20,
  dense: 0.5,
  clip: 1,
  targets: "centroid",
};

/** Rate that is left at the end. */
const finalRate = 1e-5;

/** Learning rate of step `step` (0 and up): a linear rise, then a cosine. */
export function rateAt({ steps, rate, warmUp }: Recipe, step: number): number {
  const rise = Math.min(1, (step + 1) / warmUp);
  return rate * rise * (0.5 + 0.5 * Math.cos((Math.PI * step) / Math.max(1, steps))) + finalRate;
}

/** Does a row of this step choose among what its indexer selects? */
export function isSparse({ steps, dense }: Recipe, step: number): boolean {
  return step >= Math.round(steps * dense);
}

/** Query positions of a step in sequences of `length` tokens; always as many. */
export function queriesAt({ stride }: Pick<Recipe, "stride">, step: number, length: number): number[] {
  const count = Math.floor(length / stride);
  const first = step % stride;
  return Array.from({ length: count }, (_, i) => first + i * stride);
}

/** Draws the sequences of each step: every sequence once before any comes again, in an order that the seed decides. */
export class BatchOrder {
  readonly #sequences: number;
  readonly #batch: number;
  readonly #seed: number;
  #epoch = -1;
  #order: number[] = [];

  constructor(sequences: number, batch: number, seed: number) {
    this.#sequences = sequences;
    this.#batch = batch;
    this.#seed = seed;
  }

  at(step: number): number[] {
    return Array.from({ length: this.#batch }, (_, i) => this.#sequence(step * this.#batch + i));
  }

  #sequence(place: number): number {
    const epoch = Math.floor(place / this.#sequences);
    if (epoch !== this.#epoch) {
      const random = Random.forPart(this.#seed, `distill epoch ${epoch}`);
      this.#order = random.shuffled([...Array(this.#sequences).keys()]);
      this.#epoch = epoch;
    }
    return this.#order[place % this.#sequences] as number;
  }
}

/**
 * The pattern of a step that trains for any pattern: a sixth to seven twelfths of the layers are Full, the first one always.
 * @param trainable F where a layer has an indexer to train
 */
export function patternAt(trainable: Pattern, step: number, seed: number): Pattern {
  const random = Random.forPart(seed, `distill pattern ${step}`);
  const layers = trainable.length;
  const choices = [...trainable].flatMap((letter, layer) => (letter === "F" && layer > 0 ? [layer] : []));
  const low = Math.max(1, Math.round(layers / 6));
  const high = Math.max(low, Math.min(choices.length + 1, Math.round((layers * 7) / 12)));
  const full = new Set([0, ...random.sample(choices, random.integer(low, high) - 1)]);
  return parsePattern(Array.from({ length: layers }, (_, layer) => (full.has(layer) ? "F" : "S")).join(""));
}
