/**
 * Options that are declared once: help, completion, config file and the type of a command's flags all come from the
 * declaration. Lists of them are plain arrays, which commands put together.
 */
import { Option } from "commander";

declare const flags: unique symbol;

/** An option of commander's that knows what it adds to the flags: `{ seed: number }`. */
export interface DeclaredOption<Given extends object = never> extends Option {
  readonly [flags]?: (given: Given) => void;
}

export type OptionList = readonly DeclaredOption[];

type Given<O> = O extends DeclaredOption<infer G> ? (all: G) => void : never;
type Together<L extends OptionList> = Given<L[number]> extends (all: infer All) => void ? All : never;

/** The flags of a command with these options, as commander parses them. */
export type Flags<L extends OptionList> = { [K in keyof Together<L>]: Together<L>[K] };

type CamelCase<S extends string> = S extends `${infer Word}-${infer Rest}`
  ? `${Word}${Capitalize<CamelCase<Rest>>}`
  : S;
/** `sequenceLength` for `--sequence-length <n>`. */
type NameOf<F extends string> = F extends `${string}--no-${infer Name}`
  ? CamelCase<Name>
  : F extends `${string}--${infer Name} ${string}`
    ? CamelCase<Name>
    : F extends `${string}--${infer Name}`
      ? CamelCase<Name>
      : never;
/** Commander's values: of a switch, of text, of several where dots follow. */
type TextOf<F extends string> = F extends `${string}...>`
  ? string[]
  : F extends `${string}${"<" | "["}${string}`
    ? string
    : boolean;
/** True where `[value]` is left out. */
type Value<F extends string, T> = F extends `${string}[${string}` ? T | true : T;

type Always<F extends string, T> = DeclaredOption<Record<NameOf<F>, Value<F, T>>>;
type Maybe<F extends string, T> = DeclaredOption<
  F extends `${string}--no-${string}` ? Record<NameOf<F>, boolean> : Partial<Record<NameOf<F>, Value<F, T>>>
>;

/**
 * @param names as commander writes them: `-c, --calibration <path>`, `--json`, `--no-pack`, `--profile [file]`
 * @param parse from the text to the value; throws `InvalidArgumentError` with what it must be
 * @param shown how help writes the default
 */
export function option<F extends string>(names: F, description: string): Maybe<F, TextOf<F>>;
export function option<F extends string>(names: F, description: string, initial: string): Always<F, string>;
export function option<F extends string, T>(names: F, description: string, parse: (text: string) => T): Maybe<F, T>;
export function option<F extends string, T>(
  ...words: [names: F, description: string, parse: (text: string) => T, initial: NoInfer<T>, shown?: string]
): Always<F, T>;
export function option(
  names: string,
  description: string,
  parse?: string | ((text: string) => unknown),
  initial?: unknown,
  shown?: string,
): Option {
  const declared = new Option(names, description);
  if (typeof parse === "function") declared.argParser(parse).default(initial, shown);
  else declared.default(parse);
  return declared;
}

/** An option that has to be given. */
export function required<F extends string>(names: F, description: string): Always<F, string> {
  return new Option(names, description).makeOptionMandatory();
}

/** An option that takes one of these values. */
export function choice<F extends string, T extends string>(
  ...words: [names: F, description: string, choices: readonly T[], initial: NoInfer<T>]
): Always<F, T>;
export function choice<F extends string, T extends string>(
  ...words: [names: F, description: string, choices: readonly T[]]
): Maybe<F, T>;
export function choice(names: string, description: string, choices: readonly string[], initial?: string): Option {
  return new Option(names, description).choices(choices).default(initial);
}

/** An option that may be given several times: each time adds to a list. */
export class RepeatableOption extends Option {
  constructor(names: string, description: string, shown?: string) {
    super(names, description);
    this.argParser((value: string, previous: string[]) => [...previous, value]).default([], shown);
  }
}

/** @param shown how help writes the default, which is an empty list */
export function repeatable<F extends string>(names: F, description: string, shown?: string): Always<F, string[]> {
  return new RepeatableOption(names, description, shown);
}

/** Options that help shows under a heading. */
export function group<const L extends OptionList>(heading: string, ...list: L): L {
  for (const declared of list) declared.helpGroup(heading);
  return list;
}

const suggested = new WeakMap<Option, readonly string[]>();

/** @param values that a shell may offer, where an option takes others as well and so has no choices */
export function suggest<O extends Option>(option: O, values: readonly string[]): O {
  suggested.set(option, values);
  return option;
}

/** What may follow an option; none for files and numbers. */
export function suggestedValues(option: Option): readonly string[] {
  return option.argChoices ?? suggested.get(option) ?? [];
}
