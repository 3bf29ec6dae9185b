/** How the declaration of a command ends: its prose, the options that matter most, and what it does. */
import type { Command } from "commander";
import { shortenHelp } from "../help/help-groups.ts";
import { helpText } from "../help/help-text.ts";
import { interruptible } from "./interruption.ts";
import { Terminal, type Verbosity } from "./terminal.ts";

interface WorkWords {
  /** The prose of `--help`, and its examples. */
  help: string;
  /** Options that `--help` shows, where it shows some alone: as `shortenHelp` takes them. */
  shown?: string;
  /** What the first Ctrl-C answers; without it the first one kills. */
  stopping?: string;
}

/**
 * Gives a command its work, once it has all its options.
 * @param work takes the arguments and the flags as commander has parsed them, and the terminal that they ask for
 */
export function addWork<Given extends unknown[]>(
  command: Command,
  { help, shown, stopping }: WorkWords,
  work: (...given: [...Given, Terminal]) => Promise<void>,
): void {
  if (shown !== undefined) shortenHelp(command, shown);
  command.addHelpText("after", helpText(help)).action((...parsed: [...Given, Command]) => {
    const given = parsed.slice(0, -1) as Given;
    const start = async (signal?: AbortSignal) => {
      const terminal = new Terminal(given.at(-1) as Verbosity, signal);
      await work(...given, terminal).finally(() => terminal.end());
    };
    return stopping === undefined ? start() : interruptible(start, stopping);
  });
}
