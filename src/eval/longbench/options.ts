/** Options of LongBench and LongBench v2. */
import { UsageError } from "../../base/errors.ts";
import { dataOptions, type OptionSet, type OptionValues, type SuiteContext } from "../suite-definition.ts";

const cutOptions = {
  ...dataOptions,
  maxLength: {
    kind: "count",
    flags: "--max-length <n>",
    help: "LongBench's max_length: cut prompts in the middle to this many tokens, wrapper and answer on top (default: so that all fits into the window)",
    decides: "prompts",
  },
} as const satisfies OptionSet;

/** The ratio of the official set-up (difflib), or that of python-Levenshtein (indel). */
const codeRatios = ["difflib", "indel"] as const;
export type CodeRatio = (typeof codeRatios)[number];

export const longbenchOptions = {
  ...cutOptions,
  codeRatio: {
    kind: "choice",
    flags: "--code-ratio <name>",
    help: "LongBench's code tasks: as the official set-up or python-Levenshtein compare",
    decides: "scores",
    choices: codeRatios,
    default: "difflib",
  },
} as const satisfies OptionSet;

const emptyOutputs = ["wrong", "drop"] as const;
export type EmptyOutputs = (typeof emptyOutputs)[number];

export const longbenchV2Options = {
  ...cutOptions,
  cot: {
    kind: "switch",
    flags: "--cot",
    help: "LongBench v2: think step by step, then answer in a second turn",
    decides: "prompts",
  },
  emptyOutputs: {
    kind: "choice",
    flags: "--empty-outputs <how>",
    help: "LongBench v2: count an empty output as wrong, or drop the item as published",
    decides: "scores",
    choices: emptyOutputs,
    default: "wrong",
  },
} as const satisfies OptionSet;

/** What the cut needs to know. */
export type CutOptions = SuiteContext & OptionValues<typeof cutOptions>;
export type LongbenchOptions = SuiteContext & OptionValues<typeof longbenchOptions>;
export type LongbenchV2Options = SuiteContext & OptionValues<typeof longbenchV2Options>;

/** @throws UsageError for prompts that the model's window does not take */
export function requireRoomForPrompts({ maxLength, window }: CutOptions): void {
  if (maxLength !== undefined && !(Number.isSafeInteger(maxLength) && maxLength >= 1)) {
    throw new UsageError(`--max-length is ${maxLength}: it must be a whole number from 1 up`);
  }
  if (maxLength !== undefined && window !== undefined && maxLength > window) {
    throw new UsageError(`--max-length is ${maxLength}, the model's window is ${window} tokens`);
  }
}
