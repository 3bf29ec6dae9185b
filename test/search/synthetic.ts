/** Losses without a model, and searches over them, for tests of the strategies. */
import fc from "fast-check";
import type { WeightedLoss } from "../../src/base/estimate.ts";
import { TIE_NATS } from "../../src/base/near-tie.ts";
import { fullLayers, type Pattern, parsePattern, sourceLayer } from "../../src/pattern/pattern.ts";
import { LayerCost } from "../../src/search/cost.ts";
import { type Found, oneByOne, type SearchEvent, type SearchResult } from "../../src/search/events.ts";
import type { Recall } from "../../src/search/losses.ts";
import { search } from "../../src/search/search.ts";
import { type Constraints, PatternSpace } from "../../src/search/space.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";

export interface Problem {
  start: Pattern;
  targets: readonly number[];
  /** Of one sequence; the mean over sequences is what a search minimises. */
  loss: (pattern: Pattern, sequence: number) => number;
  /** Default 1. */
  sequences?: number;
  constraints?: Constraints;
}

/** The same number from 0 to 1 for the same words. */
export function noise(words: string): number {
  let hash = 2166136261;
  for (const letter of words) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

/**
 * Each Shared layer costs its weight times the distance to the layer that it reads; pairs of Shared layers interact, and
 * `roughness` adds something of its own to every pattern. Whole weights and no roughness make many exact ties. Sequences
 * differ by much more than patterns do, and by a little for each pattern.
 */
export function problems({
  maxLayers = 8,
  maxSequences = 1,
  constrained = false,
} = {}): fc.Arbitrary<Problem & { retain: number }> {
  return fc
    .record({
      weights: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 2, maxLength: maxLayers }),
      owned: fc.array(fc.boolean(), { minLength: maxLayers, maxLength: maxLayers }),
      pairs: fc.array(fc.tuple(fc.nat(maxLayers), fc.nat(maxLayers), fc.integer({ min: -4, max: 4 })), {
        maxLength: 6,
      }),
      roughness: fc.constantFrom(0, 0, 2e-6, 0.5, 4),
      kept: fc.array(fc.nat(), { minLength: 1, maxLength: 3 }),
      native: fc.boolean(),
      sequences: fc.integer({ min: 1, max: maxSequences }),
      pins: fc.array(fc.nat(maxLayers), { maxLength: 2 }),
      run: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
    })
    .map(({ weights, owned, pairs, roughness, kept, native, sequences, pins, run }) => {
      const start = parsePattern(
        weights.map((_, layer) => (layer === 0 || !native || owned[layer] === true ? "F" : "S")).join(""),
      );
      const shared = (pattern: Pattern): number => {
        let sum = 20 + roughness * noise(pattern);
        for (const [layer, weight] of weights.entries()) sum += weight * (layer - sourceLayer(pattern, layer));
        for (const [one, other, gain] of pairs) if (pattern[one] === "S" && pattern[other] === "S") sum += gain;
        return sum / 8;
      };
      const loss = (pattern: Pattern, sequence: number): number =>
        sequences === 1 ? shared(pattern) : shared(pattern) + sequence + 0.05 * noise(`${pattern}/${sequence}`);
      const pinned = new Map(
        pins.filter((layer) => layer > 0 && start[layer] === "F").map((layer) => [layer, "a pin"]),
      );
      const limits = { pinned, ...(run === undefined || native ? {} : { maxSharedRun: run }) };
      const constraints: Constraints = constrained ? limits : {};
      const { fewest, size } = new PatternSpace(start, constraints);
      const targets = [...new Set(kept.map((count) => fewest + (count % (size - fewest + 1))))];
      return { start, targets, retain: Math.min(...targets), loss, sequences, constraints };
    })
    .filter(hasSignal);
}

/** Where the sparsest pattern loses nothing a search may end without a result. */
function hasSignal({ start, loss, sequences = 1, constraints = {} }: Problem): boolean {
  const { sparsest } = new PatternSpace(start, constraints);
  const mean = (pattern: Pattern) =>
    indices(sequences).reduce((sum, index) => sum + loss(pattern, index), 0) / sequences;
  return sparsest === start || Math.abs(mean(sparsest) - mean(start)) > 2 * TIE_NATS;
}

export interface Call {
  pattern: Pattern;
  base: Pattern;
  sequences: readonly number[];
}

export interface Run {
  events: SearchEvent[];
  /** What was really evaluated, in order. */
  calls: Call[];
  result: SearchResult;
  /** The pattern of the smallest target. */
  last: Found;
}

export function indices(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

export async function run(
  method: SearchMethod,
  { start, targets, loss, sequences = 1, constraints = {} }: Problem,
  options: { recall?: Recall; signal?: AbortSignal } = {},
): Promise<Run> {
  const events: SearchEvent[] = [];
  const calls: Call[] = [];
  const evaluate = oneByOne(async (pattern, asked, { base }): Promise<WeightedLoss[]> => {
    calls.push({ pattern, base, sequences: asked });
    return asked.map((sequence) => ({ loss: loss(pattern, sequence), tokens: 100 }));
  });
  const space = new PatternSpace(start, constraints);
  const work = { space, targets, sequences: indices(sequences), evaluate, ...options };
  for await (const event of search(method, work)) events.push(event);
  const end = events.at(-1);
  if (end?.kind !== "done") throw new Error("a search without a result");
  const last = end.result.patterns.at(-1);
  if (last === undefined) throw new Error("a result without a pattern");
  return { events, calls, result: end.result, last };
}

/** What a journal of these calls would hold. */
export function knownOf(calls: readonly Call[], loss: Problem["loss"]): Recall {
  const known = new Map<string, Map<number, WeightedLoss>>();
  for (const { pattern, sequences } of calls) {
    const of = known.get(pattern) ?? new Map<number, WeightedLoss>();
    for (const sequence of sequences) of.set(sequence, { loss: loss(pattern, sequence), tokens: 100 });
    known.set(pattern, of);
  }
  return (pattern, index) => known.get(pattern)?.get(index);
}

/** Body layers that the evaluator of `LayerCost` runs for these calls. */
export function layersRun(calls: readonly Call[], loss: Problem["loss"] = () => 0): number {
  const cost = new LayerCost();
  for (const { pattern, base, sequences } of calls) {
    const sum = sequences.reduce((total, index) => total + loss(pattern, index), 0);
    cost.spend(pattern, base, sequences, sum / sequences.length);
  }
  return cost.total;
}

/** Every pattern of the wanted size that the constraints allow, with its mean loss. */
export function everyLoss({ start, loss, sequences = 1, constraints = {} }: Problem, retain: number): number[] {
  const space = new PatternSpace(start, constraints);
  const free = fullLayers(start).slice(1);
  return Array.from({ length: 2 ** free.length }, (_, bits) =>
    parsePattern(
      [...start]
        .map((letter, layer) => (free.includes(layer) && ((bits >> free.indexOf(layer)) & 1) === 0 ? "S" : letter))
        .join(""),
    ),
  )
    .filter((pattern) => fullLayers(pattern).length === retain && space.allows(pattern))
    .map((pattern) => indices(sequences).reduce((sum, index) => sum + loss(pattern, index), 0) / sequences);
}
