/** Where words go: results to stdout, everything else to stderr. */
import process from "node:process";
import { ExitCode } from "../../base/errors.ts";
import { writeFailure } from "../../base/files.ts";
import { escapeForTerminal, messageLine } from "../../base/quoted.ts";
import { wrapWords } from "../../report/text-table.ts";
import { isRunByAgent } from "./agent.ts";
import { reportFailure } from "./failure.ts";

export interface Verbosity {
  json?: boolean;
  verbose?: boolean;
  quiet?: boolean;
}

/** Ink clears the screen, scrollback included, when a view does not fit: on lower terminals there are lines instead. */
const LOWEST_VIEW_ROWS = 20;

/**
 * Messages of a command, at the loudness that the user asked for. What files have put into them has no power over the
 * terminal: control characters are written as escapes, which in JSON are the same strings.
 */
export class Terminal {
  /** Aborted by the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
  readonly #verbosity: Verbosity;
  readonly #atEnd: (() => void)[] = [];
  /** What waits for the end of a view; undefined where none is shown. */
  #held: string[] | undefined;

  constructor(verbosity: Verbosity, signal: AbortSignal = new AbortController().signal) {
    this.#verbosity = verbosity;
    this.signal = signal;
  }

  /** `task` is done once the command has ended, however it ends. */
  atEnd(task: () => void): void {
    this.#atEnd.push(task);
  }

  end(): void {
    for (const task of this.#atEnd.splice(0)) task();
  }

  get quiet(): boolean {
    return this.#verbosity.quiet === true;
  }

  /** Columns that results may have; undefined where stdout is a file or pipe. */
  get resultWidth(): number | undefined {
    const { isTTY, columns } = process.stdout;
    if (isRunByAgent(process.env)) return undefined;
    return isTTY === true && columns > 0 ? columns : undefined;
  }

  /** The result, and nothing else. */
  result(text: string): void {
    const shown = escapeForTerminal(text);
    process.stdout.write(shown.endsWith("\n") ? shown : `${shown}\n`);
  }

  /** The result as JSON where `--json` asks for it, with keys in snake_case as in files, else in words. */
  answer(record: unknown, inWords: () => string): void {
    this.result(this.#verbosity.json === true ? JSON.stringify(snakeCased(record), null, 2) : inWords());
  }

  /** Progress and statistics; silent with `--quiet`. */
  note(text: string): void {
    if (!this.quiet) this.#say(folded(escapeForTerminal(text)));
  }

  /**
   * The command that comes after this one.
   * @param purpose what it answers: `whether answers stay as good`
   */
  next(purpose: string, command: string): void {
    if (this.quiet) return;
    // In one line, however long: it is there to be copied.
    const words = isRunByAgent(process.env) ? "next" : `next, ${purpose}`;
    process.stderr.write(`${escapeForTerminal(`${words}: ${command}`)}\n`);
  }

  /** With `--verbose` only. */
  detail(text: string): void {
    if (this.#verbosity.verbose === true) this.#say(escapeForTerminal(text));
  }

  /** Something that makes the result worth less than it looks: even `--quiet` does not hide it. */
  warn(text: string): void {
    this.#say(folded(`warning: ${messageLine(text)}`));
  }

  /** From here on everything waits: written into a view that redraws itself, it would be lost. */
  hold(): void {
    this.#held = [];
  }

  /** Says what has waited; what comes later is said at once. */
  tell(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const line of held) this.#say(line);
  }

  #say(line: string): void {
    if (this.#held === undefined) process.stderr.write(`${line}\n`);
    else this.#held.push(line);
  }

  /** Whether stderr can show a view that redraws itself, and nobody wants it quiet. */
  get showsViews(): boolean {
    const { isTTY, rows } = process.stderr;
    if (this.quiet || isRunByAgent(process.env)) return false;
    return isTTY === true && rows >= LOWEST_VIEW_ROWS && process.env.TERM !== "dumb" && !isSet(process.env.CI);
  }
}

/** Before a view is opened: ink looks at stdout, which may be a file while stderr is the terminal. */
export function settleColours(): void {
  if (process.env.NO_COLOR === undefined || process.env.NO_COLOR === "") process.env.FORCE_COLOR ??= "1";
  else process.env.FORCE_COLOR = "0";
}

/** A reader that closes the pipe early (`| head`) has what it wanted: that is no failure. A full disk behind `>` is one. */
export function exitOnClosedStreams(): void {
  for (const name of ["stdout", "stderr"] as const) {
    process[name].on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(ExitCode.done);
      process.exit(reportFailure(writeFailure(`Cannot write to ${name}`, error)));
    });
  }
}

/** A terminal breaks long lines in the middle of words. */
function folded(text: string): string {
  const { isTTY, columns } = process.stderr;
  if (isTTY !== true || !(columns > 20) || isRunByAgent(process.env)) return text;
  return text
    .split("\n")
    .flatMap((line) => {
      const words = line.trimStart();
      const indent = line.slice(0, line.length - words.length);
      return wrapWords(words, columns - 2, indent).map((part, index) => (index === 0 ? part : `  ${part}`));
    })
    .join("\n");
}

function snakeCased(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snakeCased);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [
      /^[a-z]+[A-Z]/.test(name) ? name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : name,
      snakeCased(field),
    ]),
  );
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== "" && value !== "false" && value !== "0";
}
