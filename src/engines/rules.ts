/** Rules that several engines share, over layers (or indexers) counted from 0. */
import type { Schedule } from "./dialect.ts";
import { type IndexFields, lettersOfTypes } from "./index-fields.ts";

/** Index i is Full iff max(i - shift, 0) mod frequency is 0. `index_skip_topk_offset` is `shift + 1` in vLLM's words. */
export function frequencyRule(count: number, frequency: number, shift: number): Schedule {
  if (frequency < 1) return { failure: `index_topk_freq is ${frequency}; it must be 1 or more` };
  return { letters: build(count, (index) => Math.max(index - shift, 0) % frequency === 0) };
}

/** Only an "S" shares; what is past the end, or any other letter, runs its indexer. */
export function patternRule(count: number, pattern: string | readonly string[]): string {
  return build(count, (index) => pattern[index] !== "S");
}

/** Only "shared" shares; what is past the end, or any other word, runs its indexer. */
export function sharedTypesRule(count: number, types: readonly string[]): Schedule {
  return { letters: build(count, (index) => types[index] !== "shared") };
}

/** vLLM's order: the pattern, then frequency and offset (2 where absent: FFSSSFSSS for 4). */
export function patternThenFrequency(fields: IndexFields, count: number): Schedule {
  if (fields.index_topk_pattern != null) return { letters: patternRule(count, fields.index_topk_pattern) };
  return frequencyRule(count, fields.index_topk_freq ?? 1, (fields.index_skip_topk_offset ?? 2) - 1);
}

/** The letters of `indexer_types`; a list that is too short fails where an engine indexes it. */
export function typesRule(count: number, types: readonly string[]): Schedule {
  const letters = lettersOfTypes(types);
  if (letters === undefined) return { failure: 'indexer_types has an entry that is neither "full" nor "shared"' };
  if (letters.length < count) return { failure: `indexer_types ends before layer ${letters.length} (IndexError)` };
  return { letters: letters.slice(0, count) };
}

export function everyIndexer(count: number): Schedule {
  return { letters: "F".repeat(count) };
}

function build(count: number, isFull: (index: number) => boolean): string {
  return Array.from({ length: count }, (_, index) => (isFull(index) ? "F" : "S")).join("");
}
