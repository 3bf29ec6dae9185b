/** What can be written after each command: the words that every shell's completion is made of. */
import type { Command, Option } from "commander";
import { suggestedValues } from "../arguments/suggested-values.ts";

export interface OptionWords {
  /** `--retain`, `-r`. */
  names: readonly string[];
  description: string;
  takesValue: boolean;
  /** Offered as its value; files where there are none. */
  values: readonly string[];
}

export interface CommandWords {
  /** `search merge`; empty for the program. */
  path: string;
  description: string;
  options: readonly OptionWords[];
  /** Names of the commands below it. */
  commands: readonly { name: string; description: string }[];
}

/** The program and all its commands. */
export function commandWords(command: Command, path = ""): CommandWords[] {
  const options = command.createHelp().visibleOptions(command);
  const listed = command.options.filter(({ hidden }) => !hidden);
  const help = options.filter((option) => !listed.some(({ long }) => long === option.long));
  return [
    {
      path,
      description: command.description(),
      options: [...listed, ...help].map(optionWords),
      commands: command.commands.map((one) => ({ name: one.name(), description: one.description() })),
    },
    ...command.commands.flatMap((one) => commandWords(one, path === "" ? one.name() : `${path} ${one.name()}`)),
  ];
}

function optionWords(option: Option): OptionWords {
  return {
    names: [option.long, option.short].filter((name) => name !== undefined),
    description: option.description,
    takesValue: option.required || option.optional,
    values: suggestedValues(option),
  };
}
