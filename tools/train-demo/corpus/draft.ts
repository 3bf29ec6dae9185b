/**
 * A text under construction that remembers which parts of it are answers: strings that a reader of everything before
 * them can know. Training gives these parts more weight, and evaluation counts how many of them a model gets right.
 */
export class Draft {
  readonly #parts: string[] = [];
  readonly #answers: [start: number, end: number][] = [];
  #length = 0;

  /** Adds text that need not be predictable. */
  add(text: string): this {
    this.#parts.push(text);
    this.#length += text.length;
    return this;
  }

  /** Adds text that follows from what stands before it. */
  answer(text: string): this {
    this.#answers.push([this.#length, this.#length + text.length]);
    return this.add(text);
  }

  get text(): string {
    return this.#parts.join("");
  }

  /** Character ranges of the answers, end excluded, in order. */
  get answers(): [start: number, end: number][] {
    return this.#answers.map(([start, end]) => [start, end]);
  }
}
