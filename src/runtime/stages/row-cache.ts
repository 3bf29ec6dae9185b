/** A cache that lives in JavaScript: rows `[capacity, width]`, fed to the runtime as a view of the rows in use. */
export class RowCache<T extends Float32Array | Uint16Array = Float32Array> {
  readonly width: number;
  readonly #make: (elements: number) => T;
  #rows: T;
  #length = 0;

  /** @param make storage for so many elements; float32 where absent */
  constructor(width: number, capacity: number, make = (elements: number) => new Float32Array(elements) as T) {
    this.width = width;
    this.#make = make;
    this.#rows = make(width * capacity);
  }

  /** Rows in use. */
  get length(): number {
    return this.#length;
  }

  /** All rows, `[capacity, width]`. */
  get storage(): T {
    return this.#rows;
  }

  /** Bytes of the storage, rows that are not in use included. */
  get allocatedBytes(): number {
    return this.#rows.byteLength;
  }

  /** A copy of the first `length` rows with room for `capacity`. */
  copy(length: number, capacity: number): RowCache<T> {
    const copy = new RowCache(this.width, Math.max(length, capacity), this.#make);
    copy.append(this.#rows.subarray(0, Math.min(length, this.#length) * this.width) as T);
    return copy;
  }

  /** The rows in use, `[length, width]`, without a copy; valid until the next `append`. */
  view(): T {
    return this.#rows.subarray(0, this.#length * this.width) as T;
  }

  /** Forgets the rows from `length` on. */
  truncate(length: number): void {
    this.#length = Math.min(length, this.#length);
  }

  /** Adds whole rows; the storage doubles when it is full. */
  append(rows: T): void {
    this.extend(rows.length / this.width).set(rows);
  }

  /** Adds `count` rows of no particular content and returns them, `[count, width]`, to be written. */
  extend(count: number): T {
    const start = this.#length * this.width;
    return this.reserve(count).subarray(start) as T;
  }

  /** Takes `count` more rows into use, for the caller to fill; returns all rows in use. */
  reserve(count: number): T {
    const needed = (this.#length + count) * this.width;
    if (needed > this.#rows.length) {
      const larger = this.#make(Math.max(needed, 2 * this.#rows.length));
      larger.set(this.view());
      this.#rows = larger;
    }
    this.#length += count;
    return this.view();
  }

  /** Takes rows from `length` on out of use and returns a copy of them. */
  cut(length: number): T {
    const rows = this.#rows.slice(length * this.width, this.#length * this.width) as T;
    this.#length = Math.min(length, this.#length);
    return rows;
  }
}
