/** RULER's 13 tasks (`scripts/synthetic.yaml`), in its order. */

import type { EvalTask } from "../item.ts";
import { stringMatchAll, stringMatchPart } from "./scoring.ts";
import { joinWithAnd, type NeedleType, numberedWords } from "./templates.ts";

/** Changes whenever a generator, a template or a score does. */
export const RULER_VERSION = 2;

export interface NiahParameters {
  haystack: "noise" | "needle" | "essay";
  keyType: NeedleType;
  valueType: NeedleType;
  /** Keys with needles, at least `queries`. */
  keys: number;
  /** Values of each key. */
  values: number;
  /** Keys that are asked for. */
  queries: number;
}

export interface RulerTask extends EvalTask {
  family: "niah" | "vt" | "cwe" | "fwe" | "squad" | "hotpotqa";
  niah?: NiahParameters;
  /** The flag that gives the data; absent for tasks that need none. */
  flag?: "--essays" | "--squad" | "--hotpotqa";
}

const one = { keys: 1, values: 1, queries: 1 };
const words = { keyType: "words", valueType: "numbers" } as const;

function niah(name: string, niah: NiahParameters): RulerTask {
  const answers = niah.values * niah.queries;
  return {
    ...base(name, 128, answers === 1 ? "binary" : "graded"),
    family: "niah",
    niah,
    ...(niah.haystack === "essay" ? { flag: "--essays" as const } : {}),
  };
}

function base(name: string, maxNewTokens: number, scores: "binary" | "graded"): EvalTask {
  return {
    name,
    version: RULER_VERSION,
    metric: "string_match_all",
    scores,
    maxNewTokens,
    stop: [],
    score: (output, { references }) => stringMatchAll(output, references),
  };
}

function question(name: string, family: "squad" | "hotpotqa"): RulerTask {
  return {
    ...base(name, 32, "binary"),
    metric: "string_match_part",
    score: (output, { references }) => stringMatchPart(output, references),
    family,
    flag: `--${family}`,
  };
}

export const rulerTasks: readonly RulerTask[] = [
  niah("niah_single_1", { haystack: "noise", ...words, ...one }),
  niah("niah_single_2", { haystack: "essay", ...words, ...one }),
  niah("niah_single_3", { haystack: "essay", keyType: "words", valueType: "uuids", ...one }),
  niah("niah_multikey_1", { haystack: "essay", ...words, ...one, keys: 4 }),
  niah("niah_multikey_2", { haystack: "needle", ...words, ...one }),
  niah("niah_multikey_3", { haystack: "needle", keyType: "uuids", valueType: "uuids", ...one }),
  niah("niah_multivalue", { haystack: "essay", ...words, ...one, values: 4 }),
  niah("niah_multiquery", { haystack: "essay", ...words, keys: 4, values: 1, queries: 4 }),
  { ...base("vt", 30, "graded"), family: "vt" },
  { ...base("cwe", 120, "graded"), family: "cwe" },
  { ...base("fwe", 50, "graded"), family: "fwe" },
  question("qa_1", "squad"),
  question("qa_2", "hotpotqa"),
];

/** What a perfect model would say after the answer prefix, without the blank that parts them. */
function goldAnswerText(family: RulerTask["family"], outputs: readonly string[]): string {
  switch (family) {
    case "niah":
      return joinWithAnd(outputs);
    case "vt":
      // As the solved example of the prompt has them.
      return outputs.join(" ");
    case "cwe":
      return numberedWords(outputs);
    case "fwe":
      return outputs.join(", ");
    case "squad":
    case "hotpotqa":
      return outputs[0] ?? "";
  }
}

/** The gold answer with the blank that leads it, unless the prompt ends with one, as that of vt does. */
export function goldAnswerAfter(prompt: string, { family }: RulerTask, outputs: readonly string[]): string {
  return `${/\s$/.test(prompt) ? "" : " "}${goldAnswerText(family, outputs)}`;
}

/** The tasks that need no data of the user. */
export const coreTasks: readonly RulerTask[] = rulerTasks.filter(({ flag }) => flag === undefined);
