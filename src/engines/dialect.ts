/**
 * What a serving engine makes of the sharing fields of a config. A dialect is one engine's reading, written down from
 * its source: which fields it takes, what it does with what is missing, and how a user hands them over.
 */
import type { Pattern } from "../pattern/pattern.ts";
import type { IndexFields } from "./index-fields.ts";
import type { ServedModel } from "./served-model.ts";

export const engineNames = ["vllm", "sglang", "transformers", "tensorrt-llm", "vllm-ascend", "atom"] as const;

export type EngineName = (typeof engineNames)[number];

/** One letter for each layer that has an indexer, or the sentence with which the engine ends instead of serving. */
export type Schedule = { letters: string } | { failure: string };

export interface Dialect {
  engine: EngineName;
  title: string;
  /** Version, commit or pull request that the rules were read from. */
  readFrom: string;
  /** Why no pattern of this model reaches the engine; undefined where it does. */
  refusal(model: ServedModel): string | undefined;
  /** What a user has to know before relying on it with this model. */
  caveats(model: ServedModel): string[];
  /** The config fields that say this pattern (one letter for each layer with an indexer). */
  fields(pattern: Pattern, model: ServedModel): IndexFields;
  /** Fields that make the engine look past `index_topk_pattern`. */
  strongerField?: "indexer_types";
  /** Sharing fields that a patched config.json keeps as they are. */
  configKeeps?: readonly (keyof IndexFields)[];
  /** What the engine runs when its config has these fields. */
  schedule(fields: IndexFields, model: ServedModel): Schedule;
  /** What happens on a first layer without indices to share, where the engine lets it come to that. */
  leadingShared: string;
  /** Lines to paste: the argument of the server, or what takes its place. */
  argument(fields: IndexFields): string[];
  /** The option that carries overrides on the command line, where there is one. */
  flag?: string;
  /** Facts for `--explain` and for reports. */
  facts: { gate: string; shortPattern: string; prediction: string; pipeline: string };
}
