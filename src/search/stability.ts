/**
 * Whether other text of the same kind would have led to the same patterns: the search again on resampled sequences
 * (bootstrap), by losses that are there already. A resample draws sequences with replacement, of each source as many as its
 * share. Greedy's steps are taken by the losses of the drawn sequences; of a pattern that nobody measured, the flip is taken to
 * cost what it cost from the nearest pattern that it was measured from. Then the best measured pattern of the size wins, as
 * in the search. At 78 layers that is seconds of computing: the event loop gets its turn in between, so that a view lives and
 * Ctrl-C ends it.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { Random } from "../base/random.ts";
import { sum } from "../base/sum.ts";
import { firstDifference, fullLayers, isFull, type Pattern, withFull } from "../pattern/pattern.ts";
import type { Found, Stability, StabilityUnknown } from "./events.ts";
import type { PatternSpace } from "./space.ts";
import type { Strategy } from "./strategy.ts";
import { chooseBest, improves } from "./ties.ts";
import type { Trials } from "./trials.ts";

/** Resamples of one number of sequences. */
const RESAMPLES = 100;
/** Share of the resamples that have to choose the same pattern. */
const AGREEING = 0.9;
/** Fewer sequences say nothing of how they vary. */
const FEWEST_SEQUENCES = 4;
/** Numbers of sequences are tried up to this multiple of those that there are; each is about so much more than the last. */
const MOST_SEQUENCES = 4;
const GROWTH = 1.5;

/**
 * @param found the search's results
 * @throws the signal's reason
 * @returns one entry for each result with fewer Full layers than the model
 */
export async function stabilityOf(
  trials: Trials,
  strategy: Strategy,
  found: readonly Found[],
  signal?: AbortSignal,
): Promise<readonly Stability[] | StabilityUnknown> {
  const { screening, losses, space } = trials;
  if (screening.name === "raced") return "race";
  if (screening.name === "bounded") return "bound";
  if (strategy.resampledBy === undefined) return "strategy";
  const count = losses.sequences.length;
  if (count < FEWEST_SEQUENCES) return "few sequences";
  const wanted = found.filter(({ pattern }) => fullLayers(pattern).length < space.size);
  if (wanted.length === 0) return [];
  const retains = wanted.map(({ pattern }) => fullLayers(pattern).length);
  const search = new ResampledSearch(trials, retains, strategy.resampledBy === "greedy steps", signal);
  const own = await search.choices(count);
  const numbers = numbersUpTo(MOST_SEQUENCES * count);
  const all: Stability[] = [];
  for (const [place, { pattern }] of wanted.entries()) {
    const agreeing = async (number: number): Promise<number> => agreement(await search.choices(number), place, pattern);
    const ownAgreement = await agreeing(count);
    const asked =
      ownAgreement >= AGREEING
        ? [...numbers.filter((number) => number < count), count]
        : numbers.filter((number) => number > count);
    all.push({
      retain: fullLayers(pattern).length,
      resamples: RESAMPLES,
      agreement: ownAgreement,
      full: [...pattern].map((_, layer) => share(own, (choice) => isFull(choice[place] ?? pattern, layer))),
      needed: await firstThat(asked, async (number) => (await agreeing(number)) >= AGREEING),
      tried: numbers.at(-1) ?? count,
    });
  }
  return all;
}

/** Changes against the start: of each source the mean, as far as it is known or taken to be. */
type Changes = readonly number[];

interface Node {
  pattern: Pattern;
  changes: Changes;
}

/** A flip of a pattern, and the measured flip of the same layer whose cost is taken for its own, where it was not measured. */
interface Flip {
  pattern: Pattern;
  like: { before: Pattern; after: Pattern } | undefined;
}

/** Patterns whose flips are remembered: resamples go the same ways for most of their steps. */
const MOST_REMEMBERED = 2000;

class ResampledSearch {
  readonly #losses: Trials["losses"];
  readonly #space: PatternSpace;
  readonly #retains: readonly number[];
  readonly #walks: boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #tokens: readonly number[];
  /** Places of the sequences of each source, and the source's share in all tokens. */
  readonly #places: readonly number[][];
  readonly #weights: readonly number[];
  /** Changes of each measured pattern, sequence by sequence. */
  readonly #measured = new Map<Pattern, Float64Array>();
  readonly #ofSize = new Map<number, Pattern[]>();
  /** For each layer, the patterns that are measured with it Full and with it Shared. */
  readonly #measuredFlips = new Map<number, { before: Pattern; after: Pattern; bits: Uint32Array }[]>();
  readonly #flips = new Map<Pattern, readonly Flip[]>();
  readonly #choices = new Map<number, Pattern[][]>();

  constructor(
    { space, losses, measured }: Trials,
    retains: readonly number[],
    walks: boolean,
    signal: AbortSignal | undefined,
  ) {
    this.#signal = signal;
    this.#losses = losses;
    this.#space = space;
    this.#retains = retains;
    this.#walks = walks;
    const start = losses.perSequence(space.start) ?? [];
    this.#tokens = start.map(({ tokens }) => tokens);
    const placeOf = new Map(losses.sequences.map((index, place) => [index, place]));
    this.#places = losses.sources.map((source) => source.flatMap((index) => placeOf.get(index) ?? []));
    this.#weights = this.#places.map((places) => this.#countTokens(places) / sum(this.#tokens));
    for (const pattern of measured) {
      const known = losses.perSequence(pattern);
      if (known === undefined) continue;
      this.#measured.set(
        pattern,
        Float64Array.from(known, ({ loss }, place) => loss - (start[place]?.loss ?? 0)),
      );
      if (space.allows(pattern)) append(this.#ofSize, fullLayers(pattern).length, pattern);
    }
    for (const after of this.#measured.keys()) {
      for (const layer of space.sharedByChoice(after)) {
        const before = withFull(after, layer);
        if (this.#measured.has(before)) append(this.#measuredFlips, layer, { before, after, bits: bitsOf(before) });
      }
    }
  }

  /** What each resample of so many sequences chooses, for each wanted size. */
  async choices(count: number): Promise<Pattern[][]> {
    const known = this.#choices.get(count);
    if (known !== undefined) return known;
    const random = Random.forPart(0, `stability ${count}`);
    const choices: Pattern[][] = [];
    for (let resample = 0; resample < RESAMPLES; resample++) {
      const drawn = this.#places.map((places) => {
        const number = Math.max(1, Math.round((count * places.length) / this.#tokens.length));
        return Array.from({ length: number }, () => random.pick(places));
      });
      choices.push(await this.#choose(drawn));
    }
    this.#choices.set(count, choices);
    return choices;
  }

  async #choose(drawn: readonly (readonly number[])[]): Promise<Pattern[]> {
    const changes = this.#changesBy(drawn);
    const ends = this.#walks ? await this.#walk(changes) : new Map<number, Node>();
    await this.#giveWay();
    return this.#retains.map((retain) => {
      let best = ends.get(retain);
      for (const pattern of this.#ofSize.get(retain) ?? []) {
        const node = { pattern, changes: changes(pattern) };
        if (best === undefined || improves({ loss: this.#total(node) }, { loss: this.#total(best) })) best = node;
      }
      if (best === undefined) throw new Error(`no pattern with ${retain} Full layers was measured`);
      return best.pattern;
    });
  }

  /** Greedy's steps to the smallest wanted size; what they pass, by size. */
  async #walk(changes: (pattern: Pattern) => Changes): Promise<Map<number, Node>> {
    const passed = new Map<number, Node>();
    const { start, size: largest } = this.#space;
    const least = Math.min(...this.#retains);
    let from: Node = { pattern: start, changes: changes(start) };
    for (let size = largest; size > least; size--) {
      await this.#giveWay();
      const tried = this.#flipsOf(from.pattern, least).map(({ pattern, like }) => {
        const child = { pattern, changes: like === undefined ? changes(pattern) : add(from.changes, like, changes) };
        return { ...child, evaluation: { loss: this.#total(child) } };
      });
      if (tried.length === 0) break;
      from = chooseBest(tried);
      passed.set(size - 1, from);
    }
    return passed;
  }

  async #giveWay(): Promise<void> {
    await nextTurn();
    this.#signal?.throwIfAborted();
  }

  /** Without those whose layer was never measured as Shared and as Full beside it. */
  #flipsOf(from: Pattern, least: number): readonly Flip[] {
    const known = this.#flips.get(from);
    if (known !== undefined) return known;
    const bits = bitsOf(from);
    const flips = this.#space.flips(from, "backward", least).flatMap((pattern): Flip[] => {
      if (this.#measured.has(pattern)) return [{ pattern, like: undefined }];
      const like = nearest(this.#measuredFlips.get(firstDifference(from, pattern)) ?? [], bits);
      return like === undefined ? [] : [{ pattern, like }];
    });
    if (this.#flips.size >= MOST_REMEMBERED) this.#flips.clear();
    this.#flips.set(from, flips);
    return flips;
  }

  #total({ changes }: Node): number {
    return this.#losses.combine(changes, this.#weights);
  }

  #countTokens(places: readonly number[]): number {
    return places.reduce((total, place) => total + (this.#tokens[place] ?? 0), 0);
  }

  /** Means of measured patterns over drawn sequences, source by source. */
  #changesBy(drawn: readonly (readonly number[])[]): (pattern: Pattern) => Changes {
    const known = new Map<Pattern, Changes>();
    const counted = drawn.map((places) => this.#countTokens(places));
    return (pattern) => {
      const before = known.get(pattern);
      if (before !== undefined) return before;
      const values = this.#measured.get(pattern);
      if (values === undefined) throw new Error(`${pattern} has not been measured`);
      const changes = drawn.map((places, source) => {
        let total = 0;
        for (const place of places) total += (values[place] ?? 0) * (this.#tokens[place] ?? 0);
        return total / (counted[source] ?? 1);
      });
      known.set(pattern, changes);
      return changes;
    };
  }
}

function add(to: Changes, { before, after }: NonNullable<Flip["like"]>, by: (pattern: Pattern) => Changes): Changes {
  const less = by(before);
  const more = by(after);
  return to.map((change, source) => change + (more[source] ?? 0) - (less[source] ?? 0));
}

/** A bit for each Full layer. */
function bitsOf(pattern: Pattern): Uint32Array {
  const bits = new Uint32Array(Math.ceil(pattern.length / 32));
  for (const layer of fullLayers(pattern)) bits[layer >> 5] = (bits[layer >> 5] ?? 0) | (1 << (layer & 31));
  return bits;
}

/** That of the pattern with the fewest other letters; of several, the one measured last. */
function nearest<T extends { bits: Uint32Array }>(flips: readonly T[], to: Uint32Array): T | undefined {
  let best: T | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const flip of flips) {
    let distance = 0;
    for (let word = 0; word < to.length; word++) distance += countBits((flip.bits[word] ?? 0) ^ (to[word] ?? 0));
    if (distance > least) continue;
    best = flip;
    least = distance;
  }
  return best;
}

function countBits(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

function append<K, T>(to: Map<K, T[]>, key: K, one: T): void {
  const known = to.get(key);
  if (known === undefined) to.set(key, [one]);
  else known.push(one);
}

function agreement(choices: readonly Pattern[][], place: number, pattern: Pattern): number {
  return share(choices, (choice) => choice[place] === pattern);
}

function share<T>(all: readonly T[], holds: (one: T) => boolean): number {
  return all.filter(holds).length / all.length;
}

/** The first number that passes, if all after one that passes do: more sequences agree more often. */
async function firstThat(
  numbers: readonly number[],
  passes: (number: number) => Promise<boolean>,
): Promise<number | undefined> {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (await passes(numbers[middle] ?? 0)) high = middle;
    else low = middle + 1;
  }
  return numbers[low];
}

/** 4, 6, 9, ... and the limit itself. */
function numbersUpTo(limit: number): number[] {
  const numbers: number[] = [];
  for (let number = FEWEST_SEQUENCES; number < limit; number = Math.ceil(number * GROWTH)) numbers.push(number);
  return [...numbers, limit];
}
