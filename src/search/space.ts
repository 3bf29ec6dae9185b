/**
 * The patterns that a search may try. A model fixes some layers (those it shares itself have no indexer to run), a
 * deployment others: pipeline stages that must begin Full, layers that are pinned, runs of Shared layers that are too long.
 */

import { UsageError } from "../base/errors.ts";
import { counted } from "../base/quantities.ts";
import { fullLayers, type Pattern, parsePattern, withFull, withShared } from "../pattern/pattern.ts";

export type Direction = "backward" | "forward";

export interface Constraints {
  /** Layers that stay Full, each with what asks for it, for messages ("--pin-full"). Layer 0 always does. */
  pinned?: ReadonlyMap<number, string>;
  /** Shared layers that may stand in a row. */
  maxSharedRun?: number;
}

export class PatternSpace {
  /** The model's own pattern. */
  readonly start: Pattern;
  readonly #pinned: ReadonlyMap<number, string>;
  readonly #maxSharedRun: number;
  readonly #owned: readonly number[];

  /** @throws UsageError for a pinned layer without an indexer, or if the model's own pattern breaks the run limit */
  constructor(start: Pattern, { pinned = new Map(), maxSharedRun }: Constraints = {}) {
    this.start = start;
    this.#pinned = new Map([[0, "layer 0"], ...pinned]);
    this.#maxSharedRun = maxSharedRun ?? start.length;
    this.#owned = fullLayers(start);
    for (const [layer, why] of pinned) {
      if (layer >= start.length)
        throw new UsageError(`${why} names layer ${layer}, the model has ${start.length} layers`);
      if (start[layer] === "S") {
        throw new UsageError(
          `${why} asks for layer ${layer} to be Full, the model itself shares it and has no indexer there`,
          {
            hint: `its own pattern is ${start}`,
          },
        );
      }
    }
    if (longestRun(start) > this.#maxSharedRun) {
      throw new UsageError(
        `--max-shared-run ${this.#maxSharedRun} cannot be met: the model itself shares ${longestRun(start)} layers in a row`,
        { hint: `its own pattern is ${start}` },
      );
    }
  }

  /** Layers with an indexer. */
  get size(): number {
    return this.#owned.length;
  }

  /** Layers that stay Full in every pattern, layer 0 among them. */
  get pinned(): number {
    return this.#pinned.size;
  }

  /** Whether runs of Shared layers have a limit: what a step may try then depends on the steps before it. */
  get limitsRuns(): boolean {
    return this.#maxSharedRun < this.start.length;
  }

  /** Fewest Full layers of any pattern here. */
  get fewest(): number {
    return this.#fewest([...this.#pinned.keys()], this.#owned);
  }

  /**
   * Refuses a number of Full layers that no pattern here has, naming what prevents it.
   * @param where what asks for it
   * @throws UsageError
   */
  requireReachable(retain: number, where = "--retain"): void {
    if (retain > this.size) {
      throw new UsageError(
        `${where} asks for ${counted(retain, "Full layer")}, the model itself has only ${this.size}`,
        {
          hint: `its own pattern is ${this.start}`,
        },
      );
    }
    if (retain >= this.fewest) return;
    const reasons = new Map<string, number[]>();
    for (const [layer, why] of this.#pinned) if (layer > 0) reasons.set(why, [...(reasons.get(why) ?? []), layer]);
    const pins = [...reasons].map(([why, layers]) => `${why} keeps ${layers.join(", ")} Full`);
    const run = this.limitsRuns ? [`--max-shared-run is ${this.#maxSharedRun}`] : [];
    throw new UsageError(
      `${where} asks for ${counted(retain, "Full layer")}, at least ${this.fewest} are needed: ${[...pins, ...run].join(", ")} (layer 0 is always Full)`,
      { hint: "ask for more Full layers, or drop a constraint" },
    );
  }

  allows(pattern: Pattern): boolean {
    return (
      longestRun(pattern) <= this.#maxSharedRun && [...this.#pinned.keys()].every((layer) => pattern[layer] === "F")
    );
  }

  /**
   * Patterns one flip away, by flipped layer ascending, from which a pattern with `retain` Full layers can be reached.
   * Backward flips share a layer, forward flips return its indexer to a Shared layer.
   */
  flips(from: Pattern, direction: Direction, retain: number): Pattern[] {
    if (direction === "backward") {
      return this.shareable(from)
        .map((layer) => withShared(from, layer))
        .filter((pattern) => this.allows(pattern) && this.#reachesDown(pattern, retain));
    }
    return this.sharedByChoice(from)
      .map((layer) => withFull(from, layer))
      .filter((pattern) => this.#reachesUp(pattern, retain));
  }

  /** Only the pinned layers Full: where forward searches begin. It may have runs that are too long. */
  get sparsest(): Pattern {
    return parsePattern([...this.start].map((_, layer) => (this.#pinned.has(layer) ? "F" : "S")).join(""));
  }

  /** Full layers that may be Shared. */
  shareable(pattern: Pattern): number[] {
    return fullLayers(pattern).filter((layer) => !this.#pinned.has(layer));
  }

  /** Shared layers that have an indexer. */
  sharedByChoice(pattern: Pattern): number[] {
    return this.#owned.filter((layer) => pattern[layer] === "S");
  }

  /** Patterns with this many Full layers, at most: run limits leave fewer. */
  count(retain: number): number {
    return binomial(this.size - this.#pinned.size, retain - this.#pinned.size);
  }

  /**
   * All patterns with this many Full layers, in the order of letters with S before F: of two that tie the one comes first
   * that shares the lowest layer in which they differ.
   */
  *patterns(retain: number): Generator<Pattern> {
    const free = this.#owned.filter((layer) => !this.#pinned.has(layer));
    /** Chooses from `index` on, `left` more Full layers. */
    function* choices(letters: readonly string[], index: number, left: number): Generator<Pattern> {
      const layer = free[index];
      if (layer === undefined) {
        yield parsePattern(letters.join(""));
        return;
      }
      if (free.length - index > left) yield* choices(letters.with(layer, "S"), index + 1, left);
      if (left > 0) yield* choices(letters.with(layer, "F"), index + 1, left - 1);
    }
    if (retain < this.#pinned.size) return;
    for (const pattern of choices([...this.start], 0, retain - this.#pinned.size)) {
      if (this.allows(pattern)) yield pattern;
    }
  }

  #reachesDown(pattern: Pattern, retain: number): boolean {
    return this.#fewest([...this.#pinned.keys()], fullLayers(pattern)) <= retain;
  }

  #reachesUp(pattern: Pattern, retain: number): boolean {
    return this.#fewest(fullLayers(pattern), this.#owned) <= retain;
  }

  /**
   * Fewest Full layers of a pattern that has all the required ones, takes others only from the available ones, and keeps
   * the run limit; Infinity if there is none. Going as far as the limit allows each time is optimal.
   */
  #fewest(required: readonly number[], available: readonly number[]): number {
    const must = new Set(required);
    if (!this.limitsRuns) return must.size;
    const can = [...new Set([...required, ...available])].sort((left, right) => left - right);
    let at = 0;
    let count = 1;
    const end = this.start.length;
    for (;;) {
      const reach = at + this.#maxSharedRun + 1;
      const next = can.find((layer) => layer > at && must.has(layer)) ?? end;
      if (next <= reach) {
        if (next === end) return count;
        at = next;
      } else {
        const jump = can.filter((layer) => layer > at && layer <= reach).at(-1);
        if (jump === undefined) return Number.POSITIVE_INFINITY;
        at = jump;
      }
      count++;
    }
  }
}

/** Layers at which two patterns differ, ascending. */
export function differences(left: Pattern, right: Pattern): number[] {
  return [...left].flatMap((letter, layer) => (letter === right[layer] ? [] : [layer]));
}

/** Ways to choose; 0 if there are fewer to choose from. */
function binomial(from: number, chosen: number): number {
  if (chosen < 0 || chosen > from) return 0;
  let ways = 1;
  for (let index = 1; index <= Math.min(chosen, from - chosen); index++) ways = (ways * (from - index + 1)) / index;
  return Math.round(ways);
}

function longestRun(pattern: Pattern): number {
  return Math.max(...pattern.split("F").map((run) => run.length));
}
