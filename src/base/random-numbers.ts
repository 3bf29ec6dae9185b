/** Random numbers by the hundred million, for whoever needs their statistics and not each one of them. */
import type { Random } from "./random.ts";

/** A prime: where rows of any width are cut from it one after the other, they do not repeat. */
const blockLength = 1_048_573;

/** Uniform numbers of mean 0 and variance 1, read round and round from one block. */
export class RandomNumbers {
  readonly #block: Float32Array;
  #next = 0;

  constructor(random: Random) {
    this.#block = Float32Array.from({ length: blockLength }, () => (2 * random.unit() - 1) * Math.sqrt(3));
  }

  /** The next `count` numbers. */
  next(count: number): Float32Array {
    return this.fill(new Float32Array(count));
  }

  /** Puts the next numbers into `target` and returns it. */
  fill(target: Float32Array): Float32Array {
    for (let at = 0; at < target.length; ) {
      const part = this.#block.subarray(this.#next, this.#next + target.length - at);
      target.set(part, at);
      at += part.length;
      this.#next = (this.#next + part.length) % blockLength;
    }
    return target;
  }
}
