/** How a command ends when it does not end well. */
import process from "node:process";
import { CommanderError } from "commander";
import { ExitCode, IndexCacheError } from "../../base/errors.ts";
import { escapeForTerminal } from "../../base/quoted.ts";

/** Characters of a stack; a message in it can repeat a file. */
const LONGEST_STACK = 16_000;

/**
 * Tells of an error on stderr. Known ones are one line and a hint; anything else is a defect of this program and comes
 * with its stack.
 */
export function reportFailure(error: unknown): ExitCode {
  // Commander has printed its own message; what it throws for --help and --version is no failure.
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.badInput;
  if (error instanceof IndexCacheError) {
    process.stderr.write(`error: ${error.message}\n`);
    if (error.hint !== undefined) process.stderr.write(`hint: ${error.hint}\n`);
    return error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`error: this is a defect of indexcache\n${escapeForTerminal(text.slice(0, LONGEST_STACK))}\n`);
  return ExitCode.runtimeFailure;
}
