/** A cache of fixed size in JavaScript that a graph is given as a whole, rows `[capacity, width]`. */
import type { Tensor } from "onnxruntime-node";
import { InputError } from "../../base/errors.ts";
import type { Dtype } from "../measurement.ts";

export class FedCache {
  /** The graph's names of the rows that go in and of those that come out. */
  readonly past: string;
  readonly fresh: string;
  readonly #dtype: Dtype;
  readonly #width: number;
  /** float16 as its bits. */
  readonly #rows: Float32Array | Uint16Array;

  constructor({ past, fresh, width }: { past: string; fresh: string; width: number }, capacity: number, dtype: Dtype) {
    this.past = past;
    this.fresh = fresh;
    this.#dtype = dtype;
    this.#width = width;
    this.#rows = dtype === "float16" ? new Uint16Array(capacity * width) : new Float32Array(capacity * width);
  }

  tensor(make: typeof Tensor): Tensor {
    return new make(this.#dtype, this.#rows, [this.#rows.length / this.#width, this.#width]);
  }

  /** Puts new rows at `start` and behind it. */
  put(start: number, rows: Tensor | undefined): void {
    if (rows?.type !== this.#dtype) throw new InputError(`Output "${this.fresh}" of the model is not ${this.#dtype}`);
    const data = rows.data as Float32Array | Uint16Array;
    // Newer Node versions give float16 as numbers: their bits are what is kept.
    const bits =
      this.#dtype === "float16" ? new Uint16Array(data.buffer, data.byteOffset, data.length) : (data as Float32Array);
    this.#rows.set(bits, start * this.#width);
  }
}
