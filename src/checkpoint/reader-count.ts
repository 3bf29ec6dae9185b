/**
 * How many files to read side by side. Cores hash and check files that are in memory, or on a quick disk, as many times
 * quicker as there are; a disk that has to seek becomes slower. So there are twice as many readers as long as that helps.
 */

/** A measurement takes that long at least. */
const leastSeconds = 0.1;
/** And so many bytes of each reader. */
const leastBytes = 64 << 20;

export class ReaderCount {
  /** So many may read now. */
  count: number;
  readonly #most: number;
  /** Bytes a second with as many as there were before. */
  #before = 0;
  #previous = 1;
  /** Others may have been at work the first time: it is measured twice that more readers do not help. */
  #isSecondLook = false;
  #isSettled: boolean;
  #start: number | undefined;
  #bytes = 0;

  /** @param first how many to begin with */
  constructor(most: number, first = 1) {
    this.#most = most;
    this.count = first;
    this.#isSettled = most < 2;
  }

  /**
   * Hears of bytes that were read while `count` were at it.
   * @param seconds of a clock
   */
  add(bytes: number, seconds: number): void {
    if (this.#isSettled) return;
    // The time before the first bytes went into them, and into whatever had to be opened.
    if (this.#start === undefined) {
      this.#start = seconds;
      return;
    }
    this.#bytes += bytes;
    const passed = seconds - this.#start;
    if (passed < leastSeconds || this.#bytes < leastBytes * this.count) return;
    const rate = this.#bytes / passed;
    this.#start = undefined;
    this.#bytes = 0;
    if (rate >= 1.1 * this.#before) {
      this.#before = rate;
      this.#isSecondLook = false;
      if (this.count === this.#most) this.#isSettled = true;
      this.#previous = this.count;
      this.count = Math.min(2 * this.count, this.#most);
    } else if (!this.#isSecondLook) this.#isSecondLook = true;
    else {
      if (rate < 0.9 * this.#before) this.count = this.#previous;
      this.#isSettled = true;
    }
  }
}
