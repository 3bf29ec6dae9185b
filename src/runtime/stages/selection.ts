/**
 * The keys that an indexer selects over a sequence, as one bit for each row and key: a sixteenth of the indices' memory
 * where `index_topk` is half of the keys, and two selections are compared 32 keys at a time.
 */

/** Rows from `first` on; each selects `width` keys, all of them visible to it. */
export class Selection {
  readonly first: number;
  readonly width: number;
  readonly #words: number;
  readonly #bits: Uint32Array;

  constructor(first: number, rows: number, keys: number, width: number) {
    this.first = first;
    this.width = width;
    this.#words = Math.ceil(keys / 32);
    this.#bits = new Uint32Array(rows * this.#words);
  }

  /** Takes up the `topk_indices` of one row; those of its future are left out. */
  set(row: number, indices: Int32Array): void {
    const start = (row - this.first) * this.#words;
    for (const key of indices) {
      if (key <= row) this.#bits[start + (key >>> 5)] = (this.#bits[start + (key >>> 5)] as number) | (1 << (key & 31));
    }
  }

  /** Keys that both select in a row. */
  common(other: Selection, row: number): number {
    const start = (row - this.first) * this.#words;
    let count = 0;
    for (let word = start; word < start + this.#words; word++) {
      count += bitCount((this.#bits[word] as number) & (other.#bits[word] as number));
    }
    return count;
  }

  /** Writes the keys of a row, ascending, into `target` from `offset` on. */
  copyRow(row: number, target: Int32Array, offset: number): void {
    const start = (row - this.first) * this.#words;
    let next = offset;
    for (let word = 0; word < this.#words; word++) {
      for (let rest = this.#bits[start + word] as number; rest !== 0; rest &= rest - 1) {
        target[next++] = 32 * word + 31 - Math.clz32(rest & -rest);
      }
    }
  }
}

function bitCount(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
