/** A cache of fixed size in JavaScript that a graph is given as a whole, float32 rows `[capacity, width]`. */
import type { Tensor } from "onnxruntime-node";
import { floats } from "./onnx-session.ts";

export class FedCache {
  /** The graph's names of the rows that go in and of those that come out. */
  readonly past: string;
  readonly fresh: string;
  readonly #width: number;
  readonly #rows: Float32Array;

  constructor({ past, fresh, width }: { past: string; fresh: string; width: number }, capacity: number) {
    this.past = past;
    this.fresh = fresh;
    this.#width = width;
    this.#rows = new Float32Array(capacity * width);
  }

  tensor(make: typeof Tensor): Tensor {
    return new make("float32", this.#rows, [this.#rows.length / this.#width, this.#width]);
  }

  /** Puts new rows at `start` and behind it. */
  put(start: number, rows: Tensor | undefined): void {
    this.#rows.set(floats(rows, this.fresh), start * this.#width);
  }
}
