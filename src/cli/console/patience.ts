/** What takes long says so: a word after two seconds, then how far it is every few. */
import { formatCount, formatDuration } from "../../report/quantities.ts";
import type { Terminal } from "./terminal.ts";

const PATIENCE_MS = 2000;
const REPEAT_MS = 5000;

/** Does the work, and says what is being waited for if it takes longer than two seconds. */
export async function whileWaiting<T>(terminal: Terminal, words: string, work: () => Promise<T>): Promise<T> {
  const timer = setTimeout(() => terminal.note(words), PATIENCE_MS);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
  }
}

/** Tells how many of some things are done: `12 of 100 sequences, about 30 s left`. Silent about what is quickly over. */
export class Countdown {
  readonly #terminal: Terminal;
  readonly #noun: string;
  readonly #started = performance.now();
  #spokenAt = this.#started + PATIENCE_MS - REPEAT_MS;

  constructor(terminal: Terminal, noun: string) {
    this.#terminal = terminal;
    this.#noun = noun;
  }

  tell(done: number, all: number): void {
    const now = performance.now();
    if (done >= all || now - this.#spokenAt < REPEAT_MS) return;
    this.#spokenAt = now;
    const left = ((now - this.#started) / 1000 / done) * (all - done);
    this.#terminal.note(
      `${formatCount(done)} of ${formatCount(all)} ${this.#noun}, about ${formatDuration(left)} left`,
    );
  }
}
