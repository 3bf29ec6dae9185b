/** Options of RULER. */
import { fillSteps } from "../generated/generator.ts";
import {
  dataOptions,
  generatedOptions,
  type OptionSet,
  type OptionValues,
  type SuiteContext,
} from "../suite-definition.ts";

export const rulerOptions = {
  ...generatedOptions,
  ...dataOptions,
  essays: {
    kind: "text",
    flags: "--essays <path>",
    help: "RULER's essays: PaulGrahamEssays.json, a folder of .txt, or any text",
    decides: "source",
  },
  squad: {
    kind: "text",
    flags: "--squad <file>",
    help: "RULER's qa_1: dev-v2.0.json of SQuAD, or the rows of the hub",
    decides: "source",
  },
  hotpotqa: {
    kind: "text",
    flags: "--hotpotqa <file>",
    help: "RULER's qa_2: hotpot_dev_distractor_v1.json of HotpotQA, or the rows of the hub",
    decides: "source",
  },
  englishWords: {
    kind: "text",
    flags: "--english-words <file>",
    help: "RULER's cwe beyond some 130K tokens: its english_words.json; without it such prompts are not full, and marked",
    decides: "source",
  },
  steps: {
    kind: "choice",
    flags: "--steps <how>",
    help: "RULER: fill prompts to their length, or size them in the steps of its own generator",
    decides: "prompts",
    choices: fillSteps,
    default: "fine",
  },
} as const satisfies OptionSet;

export type RulerOptions = SuiteContext & OptionValues<typeof rulerOptions>;
