/** Options that stand on the command line, so that what a mode of a command cannot honour is refused by name. */
import type { Command } from "commander";
import { UsageError } from "../../base/errors.ts";

/** An option as it was given: the name of its value in the flags, and how it is written. */
export interface GivenOption {
  attribute: string;
  written: string;
}

export function givenOptions(command: Command): GivenOption[] {
  return command.options.flatMap((option) => {
    const attribute = option.attributeName();
    if (command.getOptionValueSource(attribute) !== "cli") return [];
    // --cache and --no-cache share a value.
    if (option.negate !== (command.getOptionValue(attribute) === false)) return [];
    return [{ attribute, written: option.long ?? option.flags }];
  });
}

/** @throws UsageError with `reason` for options that are not among those that the mode honours */
export function requireOnly(
  given: readonly GivenOption[],
  honoured: ReadonlySet<string>,
  reason: string,
  hint: string,
): void {
  const refused = given.filter(({ attribute }) => !honoured.has(attribute)).map(({ written }) => written);
  if (refused.length === 0) return;
  const last = refused.at(-1) as string;
  const names = refused.length === 1 ? last : `${refused.slice(0, -1).join(", ")} and ${last}`;
  throw new UsageError(`${reason}: ${names} ${refused.length === 1 ? "does" : "do"} not go with it`, { hint });
}
