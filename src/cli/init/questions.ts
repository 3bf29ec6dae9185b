/**
 * Questions that options answer, or defaults, or else a person on a terminal, who is asked again until the answer is good. They
 * are on stderr: stdout belongs to results.
 */
import process from "node:process";
import { text as askText, isCancel, log, select } from "@clack/prompts";
import { IndexCacheError, InterruptedError } from "../../base/errors.ts";
import { escapeControls } from "../../base/quoted.ts";
import type { Terminal } from "../console/terminal.ts";
import type { Checked } from "./init-answers.ts";

interface Question<T> {
  /** In a word. */
  name: string;
  /** The answer of an option: it is checked, and not asked for. */
  given: string | undefined;
  message: string;
  check(answer: string): Promise<Checked<T>> | Checked<T>;
}

interface TextQuestion<T> extends Question<T> {
  hint: string;
  /** What Enter alone means. */
  initial: string;
  /** Enter alone is no answer, and `initial` what is tried where nobody is asked. */
  mustBeAsked?: boolean;
}

interface ChoiceQuestion<T> extends Question<T> {
  /** The first is the default. */
  choices: readonly [string, ...string[]];
}

export class Questions {
  readonly terminal: Terminal;
  readonly #asks: boolean;

  /** @param asks false where defaults answer what no option does */
  constructor(terminal: Terminal, asks: boolean) {
    this.terminal = terminal;
    this.#asks = asks;
  }

  async text<T>(question: TextQuestion<T>): Promise<{ text: string; value: T }> {
    const { given, message, hint, initial, mustBeAsked = false, check } = question;
    const known = given ?? (this.#asks ? undefined : initial);
    if (known !== undefined) return { text: known, value: await this.#take(question, known) };
    for (;;) {
      const answer = await askText({
        message: `${message} (${hint})`,
        output: process.stderr,
        signal: this.terminal.signal,
        ...(mustBeAsked ? {} : { placeholder: initial, defaultValue: initial }),
        validate: (value) => (mustBeAsked && (value ?? "").trim() === "" ? "An answer is needed" : undefined),
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

  async choice<T>(question: ChoiceQuestion<T>): Promise<T> {
    const { given, message, choices, check } = question;
    const known = given ?? (this.#asks ? undefined : choices[0]);
    if (known !== undefined) return this.#take(question, known);
    const answer = await select({
      message,
      output: process.stderr,
      signal: this.terminal.signal,
      options: choices.map((value) => ({ value, label: value })),
    });
    if (isCancel(answer)) throw new InterruptedError("Stopped: nothing was written");
    return (await check(answer)).value;
  }

  async #take<T>({ name, check }: Question<T>, answer: string): Promise<T> {
    const { value, found } = await check(answer);
    this.terminal.note(`${name}: ${found}`);
    return value;
  }
}
