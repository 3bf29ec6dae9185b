/** What can be written after each command: the words that every shell's completion is made of. */
import type { Command, Option } from "commander";
import { suggestedValues } from "../arguments/declared-option.ts";

export interface OptionWords {
  /** `--retain`, `-r`. */
  names: readonly string[];
  description: string;
  takesValue: boolean;
  /** Offered as its value; files where there are none. */
  values: readonly string[];
  /** Files are offered beside the values. */
  takesFiles: boolean;
}

export interface CommandWords {
  /** `search merge`; empty for the program. */
  path: string;
  description: string;
  options: readonly OptionWords[];
  /** Names of the commands below it. */
  commands: readonly { name: string; description: string }[];
  /** Offered for its arguments. */
  operands: { values: readonly string[]; takesFiles: boolean };
}

/** Words that only the caller knows. */
export interface Names {
  patterns?: readonly string[];
  commands?: readonly string[];
}

/** The program and all its commands. */
export function commandWords(command: Command, path = "", names: Names = {}): CommandWords[] {
  const options = command.createHelp().visibleOptions(command);
  const listed = command.options.filter(({ hidden }) => !hidden);
  const help = options.filter((option) => !listed.some(({ long }) => long === option.long));
  return [
    {
      path,
      description: command.description(),
      options: [...listed, ...help].map((option) => optionWords(option, names)),
      commands: command.commands.map((one) => ({ name: one.name(), description: one.description() })),
      operands: operands(command, names),
    },
    ...command.commands.flatMap((one) => commandWords(one, path === "" ? one.name() : `${path} ${one.name()}`, names)),
  ];
}

function operands(command: Command, names: Names): CommandWords["operands"] {
  const known = command.registeredArguments;
  return {
    values: known.flatMap((argument) => [
      ...(argument.argChoices ?? []),
      ...(argument.name() === "pattern" ? (names.patterns ?? []) : []),
      ...(argument.name() === "command" ? (names.commands ?? []) : []),
    ]),
    takesFiles: known.some((argument) => argument.argChoices === undefined && argument.name() !== "command"),
  };
}

function optionWords(option: Option, names: Names): OptionWords {
  const isPattern = option.long === "--pattern";
  return {
    names: [option.long, option.short].filter((name) => name !== undefined),
    description: option.description,
    takesValue: option.required || option.optional,
    values: isPattern ? (names.patterns ?? []) : suggestedValues(option),
    takesFiles: isPattern || suggestedValues(option).length === 0,
  };
}
