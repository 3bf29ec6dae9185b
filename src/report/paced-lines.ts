/** Lines about work under way, so that whoever waits sees that it lives, and a log does not fill. */

/** Seconds of silence, unless somebody says otherwise. */
const SILENCE_SECONDS = 10;

export class PacedLines {
  readonly #write: (line: string) => void;
  readonly #silence: number;
  #spokenAt: number;

  /**
   * @param silence seconds that pass before a line that may wait
   * @param spokenAt where the clock of the lines stood when the last one was written
   */
  constructor(write: (line: string) => void, silence: number = SILENCE_SECONDS, spokenAt = 0) {
    this.#write = write;
    this.#silence = silence;
    this.#spokenAt = spokenAt;
  }

  /** @param at seconds of the lines' clock */
  say(at: number, line: string): void {
    this.#spokenAt = at;
    this.#write(line);
  }

  /** Says it where nothing was said for a while. */
  sayIfSilent(at: number, line: () => string): void {
    if (at - this.#spokenAt >= this.#silence) this.say(at, line());
  }
}
