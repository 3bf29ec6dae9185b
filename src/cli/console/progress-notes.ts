/** Lines on stderr about work of known size, so that nothing is silent for long: after two seconds, then every five. */
import { formatBytes } from "../../report/quantities.ts";
import type { Terminal } from "./terminal.ts";

const FIRST_MS = 2000;
const EVERY_MS = 5000;

export class ProgressNotes {
  readonly #terminal: Terminal;
  readonly #doing: string;
  readonly #total: number | undefined;
  #done = 0;
  #tellAt = performance.now() + FIRST_MS;

  /**
   * @param doing what is under way: `checking weights`
   * @param total bytes in all, where they are known
   */
  constructor(terminal: Terminal, doing: string, total?: number) {
    this.#terminal = terminal;
    this.#doing = doing;
    this.#total = total;
  }

  advance(bytes: number): void {
    this.#done += bytes;
    const now = performance.now();
    if (now < this.#tellAt) return;
    this.#tellAt = now + EVERY_MS;
    const all = this.#total === undefined ? "" : ` of ${formatBytes(this.#total)}`;
    this.#terminal.note(`${this.#doing}: ${formatBytes(this.#done)}${all}`);
  }
}
