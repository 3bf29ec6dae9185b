/** What takes long says so on stderr: after two seconds, then every five. */
import { PacedLines } from "../../report/paced-lines.ts";
import { formatBytes, formatCount, formatDuration } from "../../report/quantities.ts";
import type { Terminal } from "./terminal.ts";

const FIRST_SECONDS = 2;
const EVERY_SECONDS = 5;

/** Does the work, and says what is being waited for if it takes longer than two seconds. */
export async function whileWaiting<T>(terminal: Terminal, words: string, work: () => Promise<T>): Promise<T> {
  const timer = setTimeout(() => terminal.note(words), 1000 * FIRST_SECONDS);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
  }
}

/** Notes about work under way: those that come too soon after the one before are not said. */
export class PacedNotes {
  readonly #started = performance.now();
  readonly #lines: PacedLines;

  constructor(terminal: Pick<Terminal, "note">) {
    this.#lines = new PacedLines((line) => terminal.note(line), EVERY_SECONDS, FIRST_SECONDS - EVERY_SECONDS);
  }

  get elapsedSeconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  note(words: () => string): void {
    this.#lines.sayIfSilent(this.elapsedSeconds, words);
  }
}

/** Says how many of some things are done: `12 of 100 sequences, about 30 s left`. What is done first also opens and warms up. */
export class Countdown {
  readonly #notes: PacedNotes;
  readonly #noun: string;
  #first: { done: number; seconds: number } | undefined;

  constructor(terminal: Pick<Terminal, "note">, noun: string) {
    this.#notes = new PacedNotes(terminal);
    this.#noun = noun;
  }

  tell(done: number, all: number): void {
    if (done >= all) return;
    const seconds = this.#notes.elapsedSeconds;
    this.#first ??= { done, seconds };
    const each = (seconds - this.#first.seconds) / (done - this.#first.done);
    const left = Number.isFinite(each) ? `, about ${formatDuration(each * (all - done))} left` : "";
    this.#notes.note(() => `${formatCount(done)} of ${formatCount(all)} ${this.#noun}${left}`);
  }
}

/** Says how many bytes are done: `checking weights: 1.2 GiB of 3 GiB`. */
export class ByteCount {
  readonly #notes: PacedNotes;
  readonly #doing: string;
  #done = 0;

  constructor(terminal: Terminal, doing: string) {
    this.#notes = new PacedNotes(terminal);
    this.#doing = doing;
  }

  /** @param total bytes in all, where they are known */
  add(bytes: number, total?: number): void {
    this.reach(this.#done + bytes, total);
  }

  reach(done: number, total?: number): void {
    this.#done = done;
    this.#notes.note(() => {
      const all = total === undefined ? "" : ` of ${formatBytes(total)}`;
      return `${this.#doing}: ${formatBytes(done)}${all}`;
    });
  }
}
