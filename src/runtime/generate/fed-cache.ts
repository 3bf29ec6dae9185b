/** A cache in JavaScript that is fed to a graph: the rows in use where it grows, all of them where its size is fixed. */
import type { Tensor } from "onnxruntime-node";
import { InputError } from "../../base/errors.ts";
import type { Dtype } from "../measurement.ts";
import { RowCache } from "../stages/row-cache.ts";

/** The graph's names of the rows that go in and of those that come out. */
interface CacheNames {
  past: string;
  fresh: string;
  width: number;
}

export class FedCache {
  readonly past: string;
  /** float16 as its bits. */
  readonly rows: RowCache<Float32Array | Uint16Array>;
  readonly #fresh: string;
  readonly #dtype: Dtype;
  readonly #grows: boolean;

  constructor({ past, fresh, width }: CacheNames, rows: number, dtype: Dtype, grows: boolean) {
    this.past = past;
    this.#fresh = fresh;
    this.#dtype = dtype;
    this.#grows = grows;
    const storage = (elements: number) =>
      dtype === "float16" ? new Uint16Array(elements) : new Float32Array(elements);
    this.rows = new RowCache(width, rows, storage);
  }

  tensor(make: typeof Tensor): Tensor {
    const rows = this.#grows ? this.rows.view() : this.rows.storage;
    return new make(this.#dtype, rows, [rows.length / this.rows.width, this.rows.width]);
  }

  /** Puts new rows at `start` and after it. */
  put(start: number, outputs: Readonly<Record<string, Tensor>>): void {
    const rows = outputs[this.#fresh];
    if (rows?.type !== this.#dtype) throw new InputError(`Output "${this.#fresh}" of the model is not ${this.#dtype}`);
    const data = rows.data as Float32Array | Uint16Array;
    // Newer Node versions give float16 as numbers: their bits are what is kept.
    const bits =
      this.#dtype === "float16" ? new Uint16Array(data.buffer, data.byteOffset, data.length) : (data as Float32Array);
    this.rows.truncate(start);
    this.rows.append(bits);
  }
}
