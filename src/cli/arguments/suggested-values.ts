/** Values of options that a shell may offer, where an option takes others as well and so has no choices. */
import type { Option } from "commander";

const suggested = new WeakMap<Option, readonly string[]>();

export function suggest<O extends Option>(option: O, values: readonly string[]): O {
  suggested.set(option, values);
  return option;
}

/** What may follow an option; none for files and numbers. */
export function suggestedValues(option: Option): readonly string[] {
  return option.argChoices ?? suggested.get(option) ?? [];
}
