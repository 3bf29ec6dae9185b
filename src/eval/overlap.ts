/**
 * Items that a calibration set has seen: they share runs of 13 tokens with it. What items of different texts share with each
 * other is the wording of the task, its template or its noise, and does not count; nor does what the set says in several windows.
 */
import { KnownRuns, type NgramSketch, RUN_TOKENS } from "../base/ngram-sketch.ts";
import type { EvalItem, Suite } from "./item.ts";

/** Runs that an item and the set have in common: 25 tokens in a row make so many. */
const MANY_RUNS = RUN_TOKENS;
/** Of a sketch that keeps few runs, more than one has to be found: one alone may be chance. */
const FEWEST_FOUND = 2;

interface OverlappingItem {
  task: string;
  id: string;
  /** Estimated number of runs in common. */
  runs: number;
}

export interface Overlap {
  items: number;
  overlapping: OverlappingItem[];
}

/**
 * Makes every item once.
 * @param encode ids of the item's prompt
 */
export async function findOverlap(
  suite: Pick<Suite, "items">,
  encode: (item: EvalItem) => ArrayLike<number>,
  sketch: NgramSketch,
  signal?: AbortSignal,
): Promise<Overlap> {
  const known = new KnownRuns(sketch);
  const texts = new Map<number, string>();
  const shared = new Set<number>();
  const candidates: { task: string; id: string; found: Set<number> }[] = [];
  let items = 0;
  for await (const item of suite.items()) {
    signal?.throwIfAborted();
    items++;
    const { task, id, cluster, length } = item;
    const found = known.find(encode(item));
    const text = cluster ?? `${task}/${length}/${id}`;
    for (const hash of found) {
      const other = texts.get(hash);
      if (other === undefined) texts.set(hash, text);
      else if (other !== text) shared.add(hash);
    }
    if (found.size > 0) candidates.push({ task, id, found });
  }
  const least = Math.max(FEWEST_FOUND, Math.ceil(MANY_RUNS / known.perFound));
  const overlapping = candidates.flatMap(({ task, id, found }) => {
    const own = [...found].filter((hash) => !shared.has(hash)).length;
    return own < least ? [] : [{ task, id, runs: Math.round(own * known.perFound) }];
  });
  return { items, overlapping };
}
