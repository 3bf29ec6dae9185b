/**
 * Losses with exact reuse, in one process, whatever computes them: layer after layer in ranges (`staged-loss.ts`), or all layers
 * in one graph (`sequence-loss.ts`). Flipping layer i leaves everything below i as it was, so the hidden states at every layer
 * boundary of a base pattern are kept and a candidate runs only from its first difference up; those of candidates stay as long
 * as there is room (`kept-states.ts`), because one of them is the next base.
 */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { firstDifference, fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { PatternRequest, SequenceLoss } from "../measurement.ts";
import type { KeptStates } from "./kept-states.ts";
import {
  type CountedExecutions,
  noExecutions,
  SequenceLosses,
  type SequenceResults,
  type TogetherOptions,
} from "./loss-backend.ts";

/** What a pattern leaves of a group of windows. */
export interface PatternStates {
  pattern: Pattern;
  /** Of each window of the group. */
  losses: readonly SequenceLoss[];
}

/** Windows that run together, and what is kept of them. */
export interface WindowGroup<S extends PatternStates> {
  /** Of the windows, among all of this process. */
  readonly places: readonly number[];
  /** Rows of each window. */
  readonly length: number;
  readonly states: KeptStates<S>;
  /** The base of the last evaluation. */
  base: Pattern | undefined;
}

/** A pattern that is to run over a group. */
export interface Walker<S extends PatternStates, G extends WindowGroup<S>> {
  group: G;
  pattern: Pattern;
  /** Kept states that spare it the most layers. */
  departure: S | undefined;
  /** Others depend on it: it is the model's own pattern, or the base. */
  leads: boolean;
  /** Whether its states at layer boundaries are kept. */
  keeps: boolean;
  /** States that have done their service once its own are kept. */
  replaces: S | undefined;
  /** Takes the counts of what it runs. */
  executions: CountedExecutions;
}

/** A walker that has arrived. */
export interface Arrival<S extends PatternStates, G extends WindowGroup<S>> {
  walker: Walker<S, G>;
  /** The first layer that ran. */
  from: number;
  states: S;
}

type Request = PatternRequest & { executions: CountedExecutions };

export abstract class WindowLosses<S extends PatternStates, G extends WindowGroup<S>> extends SequenceLosses {
  protected readonly config: DsaConfig;
  readonly #windows: number;

  constructor(config: DsaConfig, windows: number) {
    super();
    this.config = config;
    this.#windows = windows;
  }

  /** Layers come and go: all groups and patterns go through one before the next is loaded. */
  protected abstract readonly inParts: boolean;
  protected abstract groupsOf(places: readonly number[]): G[];
  /** Back to what opening leaves. */
  protected abstract forget(group: G): Promise<void>;
  /** Are divergences asked for, and the model's own distributions not known? */
  protected abstract lacksReference(group: G): boolean;
  /** Bytes that the states of layers `from` and up take. */
  protected abstract bytesOf(group: G, pattern: Pattern, from: number): number;
  /** How many of the patterns have room side by side: at least one. */
  protected abstract withRoom(requests: readonly PatternRequest[]): number;
  /** Runs patterns that are wanted together. Those that lead come first, in their order; what is asked for twice runs once. */
  protected abstract walk(
    walkers: readonly Walker<S, G>[],
    signal: AbortSignal | undefined,
  ): Promise<readonly Arrival<S, G>[]>;

  /** What was kept for states that are no longer is let go. */
  protected sweep(_group: G): void {}

  get patternsAtOnce(): number {
    return this.inParts ? Number.POSITIVE_INFINITY : 1;
  }

  async evaluateAll(
    requests: readonly PatternRequest[],
    { keep = [], afresh = false, signal }: TogetherOptions = {},
  ): Promise<SequenceResults[]> {
    const everywhere = [...Array(this.#windows).keys()];
    const asked = requests.slice(0, this.inParts ? this.withRoom(requests) : 1).map((request) => {
      return { ...request, sequences: request.sequences ?? everywhere, executions: noExecutions() };
    });
    const found = new Map<string, SequenceLoss>();
    const groups = this.groupsOf([...new Set(asked.flatMap(({ sequences }) => sequences))]);
    for (const together of this.inParts ? [groups] : groups.map((group) => [group])) {
      const walkers: Walker<S, G>[] = [];
      for (const group of together) {
        if (afresh) await this.forget(group);
        const here = asked.filter(({ sequences }) => group.places.every((place) => sequences.includes(place)));
        for (const request of here) this.#countNaive(group, request);
        const open = here.filter(({ pattern }) => {
          const known = group.states.get(pattern);
          if (known !== undefined) note(found, group, known);
          return known === undefined;
        });
        if (open.length === 0) continue;
        const leaders = this.#leaders(group, open);
        if (this.inParts) walkers.push(...leaders, ...open.map((request) => walkerOf<S, G>(group, request)));
        else {
          await this.#pass(leaders, found, signal);
          const rest = open.filter(({ pattern }) => !found.has(nameOf(pattern, group.places[0] as number)));
          walkers.push(...rest.map((request) => this.#candidate(group, request, keep)));
        }
      }
      await this.#pass(walkers, found, signal);
    }
    return asked.map(({ pattern, sequences, executions }) => ({
      sequences: sequences.map((place) => found.get(nameOf(pattern, place)) as SequenceLoss),
      executions,
    }));
  }

  /** Patterns that run before those that were asked for: the model's own for divergences, and a base that is kept. */
  #leaders(group: G, open: readonly Request[]): Walker<S, G>[] {
    const { states } = group;
    const [{ base, executions }] = open as [Request];
    const own = this.config.indexerLayers;
    const wanted = open.every((request) => request.base === base) && states.limit > 0 ? base : undefined;
    const isKept = wanted !== undefined && states.get(wanted) !== undefined;
    if (isKept && group.base !== wanted) {
      countKept(group, wanted, wanted.length, executions);
      group.base = wanted;
    }
    const leaders = wanted === undefined || isKept ? [] : [{ pattern: wanted, keeps: true }];
    if (this.lacksReference(group) && leaders[0]?.pattern !== own) leaders.unshift({ pattern: own, keeps: false });
    return leaders.map(({ pattern, keeps }) => ({
      ...walkerOf<S, G>(group, { pattern, executions }),
      leads: true,
      keeps,
    }));
  }

  /** A pattern whose states are kept if there is room for them. */
  #candidate(group: G, request: Request, keep: readonly Pattern[]): Walker<S, G> {
    const { states } = group;
    const walker = walkerOf<S, G>(group, request);
    const { pattern, base, departure } = { ...walker, base: request.base };
    // Without a base nobody departs from anywhere: a single evaluation need not hold what it passes.
    if (base === undefined) return walker;
    const from = departure === undefined ? 0 : firstDifference(pattern, departure.pattern);
    const keeps = states.retain({ base, keep, newest: pattern }, this.bytesOf(group, pattern, from));
    // The same flip on the base before this one has served its only purpose, unless it may become a base itself.
    const served = departure?.pattern === base || departure?.pattern === keep[0] ? undefined : departure;
    return { ...walker, keeps, replaces: served };
  }

  async #pass(walkers: readonly Walker<S, G>[], found: Map<string, SequenceLoss>, signal: AbortSignal | undefined) {
    try {
      for (const { walker, from, states } of walkers.length === 0 ? [] : await this.walk(walkers, signal)) {
        const { group, pattern, leads, keeps, replaces, executions } = walker;
        countKept(group, pattern, from, executions);
        note(found, group, states);
        if (!keeps) continue;
        group.states.add(states, replaces);
        if (leads) group.base = pattern;
        // The base alone: the next one will be made beside it.
        if (this.inParts) group.states.retain({ base: pattern, keep: [], newest: pattern }, Number.POSITIVE_INFINITY);
      }
    } finally {
      for (const { group } of walkers) this.sweep(group);
    }
  }

  #countNaive({ places, length }: G, { pattern, executions }: Request): void {
    const layers = this.config.numHiddenLayers;
    executions.naiveBody += layers * places.length;
    executions.naiveIndexer += fullLayers(pattern).length * places.length;
    executions.rows.prefix += layers * length * places.length;
  }
}

function walkerOf<S extends PatternStates, G extends WindowGroup<S>>(
  group: G,
  { pattern, executions }: Pick<Request, "pattern" | "executions">,
): Walker<S, G> {
  const departure = group.states.closest(pattern);
  return { group, pattern, departure, leads: false, keeps: false, replaces: undefined, executions };
}

function note(found: Map<string, SequenceLoss>, { places }: { places: readonly number[] }, known: PatternStates): void {
  for (const [at, place] of places.entries()) {
    found.set(nameOf(known.pattern, place), known.losses[at] as SequenceLoss);
  }
}

function nameOf(pattern: Pattern, place: number): string {
  return `${pattern} ${place}`;
}

/** Counts the layers below `from` that a candidate's states have spared: the base's own would not have. */
function countKept<S extends PatternStates>(
  { base, length, places }: WindowGroup<S>,
  pattern: Pattern,
  from: number,
  executions: CountedExecutions,
): void {
  const spared = (from - (base === undefined ? 0 : firstDifference(pattern, base))) * length * places.length;
  if (spared <= 0) return;
  executions.rows.kept += spared;
  executions.rows.prefix -= spared;
}
