/** A cache that lives in JavaScript: rows `[capacity, width]`, fed to the runtime as a view of the rows in use. */
export class RowCache {
  readonly width: number;
  #rows: Float32Array;
  #length = 0;

  constructor(width: number, capacity: number) {
    this.width = width;
    this.#rows = new Float32Array(width * capacity);
  }

  /** Rows in use. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of the rows in use. */
  get bytes(): number {
    return this.#length * this.width * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Bytes of the storage, rows that are not in use included. */
  get allocatedBytes(): number {
    return this.#rows.byteLength;
  }

  /** A copy of the first `length` rows with room for `capacity`. */
  copy(length: number, capacity: number): RowCache {
    const copy = new RowCache(this.width, Math.max(length, capacity));
    copy.append(this.#rows.subarray(0, Math.min(length, this.#length) * this.width));
    return copy;
  }

  /** The rows in use, `[length, width]`, without a copy; valid until the next `append`. */
  view(): Float32Array {
    return this.#rows.subarray(0, this.#length * this.width);
  }

  /** Forgets the rows from `length` on. */
  truncate(length: number): void {
    this.#length = Math.min(length, this.#length);
  }

  /** Adds whole rows; the storage doubles when it is full. */
  append(rows: Float32Array): void {
    this.extend(rows.length / this.width).set(rows);
  }

  /** Adds `count` rows of no particular content and gives them, `[count, width]`, to be written. */
  extend(count: number): Float32Array {
    const start = this.#length * this.width;
    return this.reserve(count).subarray(start);
  }

  /** Takes `count` more rows into use, for the caller to fill; gives all rows in use. */
  reserve(count: number): Float32Array {
    const needed = (this.#length + count) * this.width;
    if (needed > this.#rows.length) {
      const larger = new Float32Array(Math.max(needed, 2 * this.#rows.length));
      larger.set(this.view());
      this.#rows = larger;
    }
    this.#length += count;
    return this.view();
  }

  /** Takes rows from `length` on out of use and gives a copy of them. */
  cut(length: number): Float32Array {
    const rows = this.#rows.slice(length * this.width, this.#length * this.width);
    this.#length = Math.min(length, this.#length);
    return rows;
  }
}
