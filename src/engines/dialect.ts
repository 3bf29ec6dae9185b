/**
 * What a serving engine makes of the sharing fields of a config. A dialect is one engine's reading in one release, written
 * down from its source: which fields it takes, what it does with what is missing, and how a user hands them over.
 */
import type { Pattern } from "../pattern/pattern.ts";
import type { IndexFields } from "./index-fields.ts";
import type { Release, ReleasesRead } from "./release.ts";
import type { ServedModel } from "./served-model.ts";

/** One letter for each layer that has an indexer, or the sentence with which the engine ends instead of serving. */
export type Schedule = { letters: string } | { failure: string };

/** Why an engine cannot load a checkpoint under a pattern that it would serve otherwise. */
export interface LoadFault {
  message: string;
  /** What a user can do, each a phrase. */
  waysOut: readonly string[];
  /** Known from the weights or the config; otherwise it depends on the checkpoint. */
  certain: boolean;
}

export interface Dialect {
  engine: string;
  title: string;
  /** The release whose rules these are; undefined for an engine that was read at a commit. */
  version?: string;
  /** Version, commit or pull request that the rules were read from. */
  readFrom: string;
  /** Why no pattern of this model reaches the engine; undefined where it does. */
  refusal(model: ServedModel): string | undefined;
  /** What a user has to know before relying on it with this model. */
  caveats(model: ServedModel): string[];
  /** What stops the engine while it loads the checkpoint with these layers Shared. */
  loadFault?(letters: string, model: ServedModel): LoadFault | undefined;
  /** Why options on the same command line rule the pattern out. */
  optionFault?(options: readonly string[], letters: string): string | undefined;
  /** The config fields that say this pattern (one letter for each layer with an indexer). */
  fields(pattern: Pattern, model: ServedModel): IndexFields;
  /** Fields that make the engine look past `index_topk_pattern`. */
  strongerField?: "indexer_types";
  /** Sharing fields that a patched config.json keeps as they are. */
  configKeeps?: readonly (keyof IndexFields)[];
  /**
   * What the engine runs.
   * @param fields as they are handed over, on top of `model.fields`, which config.json has
   */
  schedule(fields: IndexFields, model: ServedModel): Schedule;
  /** What happens on a first layer without indices to share, where the engine lets it come to that. */
  leadingShared: string;
  /** Lines to paste: the argument of the server, or what takes its place. */
  argument(fields: IndexFields): string[];
  /** The option that carries overrides on the command line, where there is one. */
  flag?: string;
  /** Where the pattern goes in an engine that takes no overrides. */
  instead?: string;
  /** Facts for `--explain` and for reports. */
  facts: { gate: string; shortPattern: string; prediction: string; pipeline: string };
}

/** An engine with the rules of all its releases. */
export interface Engine {
  engine: string;
  title: string;
  /** undefined for an engine that was read at a commit of its main branch. */
  releases?: ReleasesRead;
  /** The rules of a release; of the newest one that was read for an engine without releases. */
  at(release: Release): Dialect;
}
