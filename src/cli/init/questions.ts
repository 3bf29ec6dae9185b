/** Questions on a terminal, asked again until the answer is good. They are on stderr: stdout belongs to results. */
import process from "node:process";
import { text as askText, isCancel, log, select } from "@clack/prompts";
import { IndexCacheError, InterruptedError } from "../../base/errors.ts";
import { escapeControls } from "../../base/quoted.ts";
import type { Terminal } from "../console/terminal.ts";
import type { Checked } from "./init-answers.ts";

interface TextQuestion<T> {
  /** The answer of an option: it is checked, and not asked for. */
  given: string | undefined;
  message: string;
  hint: string;
  /** What Enter alone means. */
  initial?: string;
  check(answer: string): Promise<Checked<T>>;
}

interface ChoiceQuestion<T> {
  given: string | undefined;
  message: string;
  choices: readonly string[];
  check(answer: string): Checked<T>;
}

export class Questions {
  readonly #terminal: Terminal;
  readonly #signal: AbortSignal;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#signal = terminal.signal;
  }

  async text<T>({ given, message, hint, initial, check }: TextQuestion<T>): Promise<{ text: string; value: T }> {
    if (given !== undefined) {
      const { value, found } = await check(given);
      this.#terminal.note(`${message} ${given}: ${found}`);
      return { text: given, value };
    }
    for (;;) {
      const answer = await askText({
        message: `${message} (${hint})`,
        output: process.stderr,
        signal: this.#signal,
        ...(initial === undefined ? {} : { placeholder: initial, defaultValue: initial }),
        validate: (value) => (initial === undefined && (value ?? "").trim() === "" ? "An answer is needed" : undefined),
      });
      if (isCancel(answer)) throw new InterruptedError("Stopped: nothing was written");
      try {
        const { value, found } = await check(answer.trim());
        log.success(escapeControls(found), { output: process.stderr });
        return { text: answer.trim(), value };
      } catch (error) {
        if (!(error instanceof IndexCacheError) || error instanceof InterruptedError) throw error;
        log.error(error.hint === undefined ? error.message : `${error.message}\n${error.hint}`, {
          output: process.stderr,
        });
      }
    }
  }

  async choice<T>({ given, message, choices, check }: ChoiceQuestion<T>): Promise<T> {
    if (given !== undefined) return check(given).value;
    const answer = await select({
      message,
      output: process.stderr,
      signal: this.#signal,
      options: choices.map((value) => ({ value, label: value })),
    });
    if (isCancel(answer)) throw new InterruptedError("Stopped: nothing was written");
    return check(answer).value;
  }
}
