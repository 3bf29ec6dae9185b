/** What a search strategy is: a generator over `Trials`, and the traits that everything else needs to know of it. */
import type { Pattern } from "../pattern/pattern.ts";
import type { Found, SearchEvent } from "./events.ts";
import type { Across } from "./losses.ts";
import type { RaceSettings } from "./screening/raced.ts";
import type { PatternSpace } from "./space.ts";
import type { Trials } from "./trials.ts";

/** A whole number that a strategy takes: an option of the command line, and a field of `search.settings` in files. */
interface StrategyOption {
  /** `blocks` is --blocks. */
  name: string;
  /** For help. */
  summary: string;
  /** What it is if it is not given. */
  initial: number;
  /** Files name it only if it is not at its initial value: it came later, and earlier files do not have it. */
  isNamedIfSet?: boolean;
}

/** Values of a strategy's options. */
export type StrategySettings = Readonly<Record<string, number>>;

export interface Strategy {
  name: string;
  /** For help. */
  summary: string;
  options?: readonly StrategyOption[];
  /** Its steps only need to know which of their candidates is best, so that they may race. */
  mayRace: boolean;
  /** Every step shares one more layer of the pattern before it. */
  isNested: boolean;
  /** What losses are decides how many patterns it tries. */
  isAdaptive: boolean;
  /**
   * What a search on resampled sequences does to be like it: greedy's steps and then the best of the measured patterns, or
   * the latter alone. Absent where that would be another search.
   */
  resampledBy?: "greedy steps" | "measured patterns";
  /** Of so many sequences those that it asks for at once, at least; all if absent. */
  asksFor?(sequences: number): number;
  /**
   * Layers of the model's own pattern that it keeps Full.
   * @throws UsageError for settings that do not fit the model
   */
  pinned?(start: Pattern, settings: StrategySettings): number[];
  /** @throws UsageError if it would take too long */
  requireFeasible?(space: PatternSpace, targets: readonly number[]): void;
  /** Commits a pattern of every target in `trials.targets`, all of them smaller than the measured start. */
  run(trials: Trials, start: Found, settings: StrategySettings): AsyncGenerator<SearchEvent, unknown>;
}

/** How to search: a strategy, its settings, and how its steps find their best candidates. */
export interface SearchMethod {
  strategy: Strategy;
  /** Those that are missing are at their initial values. */
  settings?: StrategySettings;
  /** Judge candidates by as few sequences as a test asks for. */
  race?: RaceSettings;
  /** How sources of text count together; by their mean if absent. */
  across?: Across | undefined;
  /** Losses are never negative and add up (KL): candidates may be dropped by what they have lost so far. */
  bounded?: boolean;
}

/** All settings of a method's strategy. */
export function strategySettings({ strategy: { options = [] }, settings = {} }: SearchMethod): StrategySettings {
  return Object.fromEntries(options.map(({ name, initial }) => [name, settings[name] ?? initial]));
}
