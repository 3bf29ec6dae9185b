/** Losses without a model, and searches over them, for tests of the strategies. */
import fc from "fast-check";
import { firstDifference, fullLayers, type Pattern, parsePattern, sourceLayer } from "../../src/pattern/pattern.ts";
import type { Evaluation, SearchEvent, SearchResult } from "../../src/search/events.ts";
import { type Strategy, search } from "../../src/search/strategy.ts";

export interface Problem {
  start: Pattern;
  retain: number;
  loss: (pattern: Pattern) => number;
}

/** The same number from 0 to 1 for the same words. */
function noise(words: string): number {
  let hash = 2166136261;
  for (const letter of words) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

/**
 * Each Shared layer costs its weight times the distance to the layer that it reads; pairs of Shared layers interact, and
 * `roughness` adds something of its own to every pattern. Whole weights and no roughness make many exact ties.
 */
export function problems({ maxLayers = 8 } = {}): fc.Arbitrary<Problem> {
  return fc
    .record({
      weights: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 2, maxLength: maxLayers }),
      owned: fc.array(fc.boolean(), { minLength: maxLayers, maxLength: maxLayers }),
      pairs: fc.array(fc.tuple(fc.nat(maxLayers), fc.nat(maxLayers), fc.integer({ min: -4, max: 4 })), {
        maxLength: 6,
      }),
      roughness: fc.constantFrom(0, 0, 2e-6, 0.5, 4),
      kept: fc.nat(),
      native: fc.boolean(),
    })
    .map(({ weights, owned, pairs, roughness, kept, native }) => {
      const start = parsePattern(
        weights.map((_, layer) => (layer === 0 || !native || owned[layer] === true ? "F" : "S")).join(""),
      );
      const loss = (pattern: Pattern): number => {
        let sum = 20 + roughness * noise(pattern);
        for (const [layer, weight] of weights.entries()) sum += weight * (layer - sourceLayer(pattern, layer));
        for (const [one, other, gain] of pairs) if (pattern[one] === "S" && pattern[other] === "S") sum += gain;
        return sum / 8;
      };
      return { start, retain: 1 + (kept % fullLayers(start).length), loss };
    });
}

export interface Call {
  pattern: Pattern;
  base: Pattern;
}

export interface Run {
  events: SearchEvent<Evaluation>[];
  /** What was really evaluated, in order. */
  calls: Call[];
  result: SearchResult<Evaluation>;
}

export async function run(
  strategy: Strategy,
  { start, retain, loss }: Problem,
  options: { memo?: ReadonlyMap<string, Evaluation>; signal?: AbortSignal } = {},
): Promise<Run> {
  const events: SearchEvent<Evaluation>[] = [];
  const calls: Call[] = [];
  const evaluate = async (pattern: Pattern, { base }: { base: Pattern }): Promise<Evaluation> => {
    calls.push({ pattern, base });
    return { loss: loss(pattern) };
  };
  for await (const event of search(strategy, { start, retain, evaluate, ...options })) events.push(event);
  const last = events.at(-1);
  if (last?.kind !== "done") throw new Error("a search without a result");
  return { events, calls, result: last.result };
}

/** Body layers that an evaluator with states at every boundary runs for these calls. */
export function layersRun(calls: readonly Call[]): number {
  let layers = 0;
  let known: Pattern | undefined;
  for (const { pattern, base } of calls) {
    layers += base.length - (known === undefined ? 0 : firstDifference(base, known));
    layers += pattern.length - firstDifference(pattern, base);
    known = base;
  }
  return layers;
}

/** Every pattern of the wanted size with its loss. */
export function everyLoss({ start, retain, loss }: Problem): number[] {
  const free = fullLayers(start).slice(1);
  return Array.from({ length: 2 ** free.length }, (_, bits) =>
    parsePattern(
      [...start]
        .map((letter, layer) => (free.includes(layer) && ((bits >> free.indexOf(layer)) & 1) === 0 ? "S" : letter))
        .join(""),
    ),
  )
    .filter((pattern) => fullLayers(pattern).length === retain)
    .map(loss);
}
