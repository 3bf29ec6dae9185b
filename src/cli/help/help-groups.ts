/**
 * `--help` of a command with many options: the ones that matter first; `--help-all` has the rest, in the groups that
 * `optionsGroup` put them into.
 */
import { type Command, CommanderError, Help, type Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";

/** Of commands whose help is short, the names of the options that it shows, in that order. */
const essentials = new WeakMap<Command, readonly string[]>();
/** Commands whose whole help was asked for. */
const whole = new WeakSet<Command>();

/**
 * Lets `--help` show these options alone, and adds `--help-all`. To be called when the command has all its options.
 * @param shown their names without dashes, with blanks between: `retain output`
 */
export function shortenHelp(command: Command, shown: string): void {
  const names = shown.split(" ");
  for (const name of names) {
    if (!command.options.some((option) => nameOf(option) === name)) {
      throw new Error(`${command.name()} has no option --${name} to show in its help`);
    }
  }
  essentials.set(command, names);
  const count = command.options.filter(({ hidden }) => !hidden).length;
  command
    .optionsGroup("Help:")
    .option("--help-all", `show all ${count} options, in groups`)
    .helpOption("-h, --help", "show the options that matter most");
  command.on("option:help-all", () => {
    whole.add(command);
    command.outputHelp();
    whole.delete(command);
    throw new CommanderError(0, "commander.help", "(outputHelp)");
  });
}

/** The part of commander's help that differs, for `configureHelp`; commands inherit it. */
export const groupedHelp: Partial<Help> & ThisType<Help> = {
  // "(default: [])" of an option that may be repeated says nothing.
  optionDescription(option) {
    return Help.prototype.optionDescription.call(this, option).replace(/ \(default: \[\]\)$/, "");
  },
  visibleOptions(command) {
    const all = Help.prototype.visibleOptions.call(this, command);
    const shown = isShort(command) ? essentials.get(command) : undefined;
    if (shown === undefined) return all.filter((option) => nameOf(option) !== "help-all");
    return [...shown, "help-all", "help"].flatMap((name) =>
      all.filter((option) => nameOf(option) === name).map(withoutHeading),
    );
  },
};

/** The option as it stands in a list of ten, which needs no headings. */
function withoutHeading(option: Option): Option {
  return Object.create(option, { helpGroupHeading: { value: undefined } }) as Option;
}

function isShort(command: Command): boolean {
  return essentials.has(command) && !whole.has(command);
}

function nameOf(option: Option): string {
  return option.long?.replace(/^--/, "") ?? option.short ?? "";
}

/**
 * The command that words name: `pattern apply`.
 * @throws UsageError where there is none
 */
export function commandNamed(words: readonly string[], all: Command): Command {
  let command = all;
  for (const word of words) {
    const next = command.commands.find((one) => one.name() === word);
    if (next === undefined)
      throw new UsageError(`${quoted(words.join(" "))} is no command`, { hint: "indexcache --help lists them" });
    command = next;
  }
  return command;
}
