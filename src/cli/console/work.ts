/** How the declaration of a command ends: its prose, the options that matter most, and what it does. */
import type { Command } from "commander";
import type { Flags, OptionList } from "../arguments/declared-option.ts";
import { shortenHelp } from "../help/help-groups.ts";
import { helpText } from "../help/help-text.ts";
import { interruptible } from "./interruption.ts";
import { Terminal, type Verbosity } from "./terminal.ts";

interface WorkWords<L extends OptionList> {
  /** In the order of `--help-all`. */
  options: L;
  /** The prose of `--help`, and its examples. */
  help: string;
  /** Options that `--help` shows, where it shows some alone: as `shortenHelp` takes them. */
  shown?: string;
  /** What the first Ctrl-C answers; without it the first one kills. */
  stopping?: string;
}

/**
 * Gives a command its options and its work.
 * @param work takes the arguments and the flags as commander has parsed them, and the terminal that they ask for
 */
export function addWork<const L extends OptionList, Given extends unknown[]>(
  command: Command,
  { options, help, shown, stopping }: WorkWords<L>,
  work: (...given: [...Given, Flags<L>, Terminal]) => Promise<void>,
): void {
  for (const option of options) command.addOption(option);
  if (shown !== undefined) shortenHelp(command, shown);
  command.addHelpText("after", helpText(help)).action((...parsed: [...Given, Flags<L>, Command]) => {
    const given = parsed.slice(0, -1) as [...Given, Flags<L>];
    const start = async (signal?: AbortSignal) => {
      const terminal = new Terminal(given.at(-1) as Verbosity, signal);
      await work(...given, terminal).finally(() => terminal.end());
    };
    return stopping === undefined ? start() : interruptible(start, stopping);
  });
}
