/** Warnings of servers that come while a view redraws itself: written into it they would be lost, so they wait until it ends. */
import type { Terminal } from "../console/terminal.ts";

export class HeldNotes {
  readonly #terminal: Terminal;
  #held: string[] | undefined;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  readonly note = (words: string): void => {
    if (this.#held === undefined) this.#terminal.warn(words);
    else this.#held.push(words);
  };

  /** From here on notes wait, where there is a view to disturb. */
  hold(): void {
    if (this.#terminal.showsViews) this.#held = [];
  }

  /** Says what has waited; later notes are said at once. */
  tell(): void {
    for (const words of this.#held ?? []) this.#terminal.warn(words);
    this.#held = undefined;
  }
}
