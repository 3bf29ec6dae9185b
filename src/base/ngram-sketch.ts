/**
 * Which runs of 13 tokens a text has, in a few kilobytes: the smallest of their hashes. Runs of other texts whose hashes are
 * as small are looked up; the others say nothing, so that what is found stands for the share that was kept.
 */

/** Tokens of a run: the length by which training sets are usually compared with benchmarks. */
export const RUN_TOKENS = 13;
/** Runs that are kept of a calibration set. */
export const CALIBRATION_RUNS = 1024;
const HASH_BYTES = 6;
const HASHES = 2 ** (8 * HASH_BYTES);

export interface NgramSketch {
  /** Tokens of a run. */
  n: typeof RUN_TOKENS;
  /** Runs with hashes from 0 up to this one were kept. */
  limit: number;
  /** Ascending, six bytes each, big-endian, in base64. */
  hashes: string;
}

/**
 * Of the windows of a set. A run that several windows have is part of a template, or the set says it itself more than once:
 * it is left out.
 */
export function sketchOf(windows: Iterable<ArrayLike<number>>, mostRuns = CALIBRATION_RUNS): NgramSketch {
  let limit = HASHES - 1;
  /** Window of each hash, or -1 for several. */
  let found = new Map<number, number>();
  let index = 0;
  const keepSmallest = (): void => {
    const kept = [...found].sort(([a], [b]) => a - b).slice(0, mostRuns);
    limit = kept.at(-1)?.[0] ?? limit;
    found = new Map(kept);
  };
  for (const window of windows) {
    forEachRun(window, (hash) => {
      if (hash > limit) return;
      const known = found.get(hash);
      found.set(hash, known === undefined || known === index ? index : -1);
    });
    // At twice as many, so that not every window costs a sort.
    if (found.size > 2 * mostRuns) keepSmallest();
    index++;
  }
  if (found.size > mostRuns) keepSmallest();
  const own = [...found].flatMap(([hash, window]) => (window === -1 ? [] : [hash])).sort((a, b) => a - b);
  const bytes = Buffer.alloc(HASH_BYTES * own.length);
  for (const [at, hash] of own.entries()) bytes.writeUIntBE(hash, HASH_BYTES * at, HASH_BYTES);
  return { n: RUN_TOKENS, limit, hashes: bytes.toString("base64") };
}

/** A sketch that texts are compared with. */
export class KnownRuns {
  readonly #known: Set<number>;
  /** Runs that one found run stands for. */
  readonly perFound: number;

  constructor({ limit, hashes }: NgramSketch) {
    const bytes = Buffer.from(hashes, "base64");
    this.#known = new Set();
    for (let at = 0; at + HASH_BYTES <= bytes.length; at += HASH_BYTES) {
      this.#known.add(bytes.readUIntBE(at, HASH_BYTES));
    }
    this.perFound = HASHES / (limit + 1);
  }

  /** Hashes of the text's runs that the sketch has, each once. */
  find(ids: ArrayLike<number>): Set<number> {
    const found = new Set<number>();
    forEachRun(ids, (hash) => {
      if (this.#known.has(hash)) found.add(hash);
    });
    return found;
  }
}

function forEachRun(ids: ArrayLike<number>, visit: (hash: number) => void): void {
  for (let from = 0; from + RUN_TOKENS <= ids.length; from++) {
    let [low, high] = [0x811c9dc5, 0x9747b28c];
    for (let at = from; at < from + RUN_TOKENS; at++) {
      const id = ids[at] ?? 0;
      low = Math.imul(low ^ id, 0x01000193);
      low ^= low >>> 15;
      high = Math.imul(high ^ id, 0x85ebca6b);
      high ^= high >>> 13;
    }
    low = Math.imul(low ^ (low >>> 16), 0x7feb352d);
    visit(((low ^ (low >>> 15)) >>> 0) * 65_536 + ((high ^ (high >>> 16)) & 0xffff));
  }
}
