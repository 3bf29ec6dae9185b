/**
 * `-c` of the commands that judge patterns: several sources with weights, of text and of answers, from files or generated.
 */

import { InputError, UsageError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { isThere } from "../../base/user-files.ts";
import { type AnswerSequence, answerSet, loadAnswers, type PromptAndAnswer } from "../../calibration/answers.ts";
import { type CalibrationSet, chooseLength, hashWindows } from "../../calibration/calibration-set.ts";
import { type CalibrationMix, mixSets, type WeightedSet } from "../../calibration/mix.ts";
import { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import { calibrationSeed } from "../../eval/generated/seeds.ts";
import type { EvalItem } from "../../eval/item.ts";
import { openPromptAssembly, type PromptAssembly } from "../../eval/prompt-assembly.ts";
import { openSuite, type SuiteName } from "../../eval/suites.ts";
import { tokenCounter } from "../../eval/token-counter.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { formatCount } from "../../report/quantities.ts";
import type { Objective } from "../../runtime/measurement.ts";
import type { Terminal } from "../console/terminal.ts";
import { choice, type Flags, group, repeatable } from "./declared-option.ts";
import { openCalibrationSet } from "./inputs.ts";
import { type TextFlags, textOptions } from "./options.ts";

/** What counts: every token's loss, its divergence from the model's own pattern, or the loss of answers alone. */
export type SearchObjective = Objective | "answer";

export const mixOptions = group(
  "Text:",
  repeatable(
    "-c, --calibration <path>",
    "text, JSON, JSONL, CSV, TSV or Parquet, packed or not, or a folder or zip of them; or answers that are generated, ruler:vt,niah_multikey_2 or graphwalks:; several with weights: -c text.jsonl=0.5 -c ruler:vt=0.5 (default, for the demo model alone: the set of the package)",
  ),
  ...textOptions,
);

export type MixFlags = Flags<typeof mixOptions> & {
  /** Where it was not said: `answer` if a source is generated, otherwise `nll`. */
  objective?: SearchObjective;
};

/** Generated sources, by the word before the colon. */
const generatedSuites: Readonly<Record<string, SuiteName>> = { ruler: "ruler-core", graphwalks: "graphwalks" };

/** Generated samples of each task, where `--sequences` does not say. */
const SAMPLES_EACH = 16;

export function objectiveOption<T extends SearchObjective>(description: string, choices: readonly T[]) {
  return choice("--objective <name>", `${description} (default: nll, or answer where -c generates answers)`, choices);
}

export function objectiveOf({ objective, calibration }: Pick<MixFlags, "objective" | "calibration">): SearchObjective {
  return objective ?? (calibration.some((text) => generatedOf(text) !== undefined) ? "answer" : "nll");
}

/** What the runtime measures for it: answers are a matter of which tokens count. */
export function measuredObjective(objective: SearchObjective): Objective {
  return objective === "kl" ? "kl" : "nll";
}

/**
 * Reads and generates all sources of `-c`, and says what it read.
 * @throws UsageError for weights and tasks that cannot be
 * @throws InputError for sources that cannot be read, and for `--objective answer` without an answer
 */
export async function openCalibrationMix(
  model: ModelDescription,
  flags: MixFlags,
  terminal: Terminal,
): Promise<CalibrationMix> {
  const objective = objectiveOf(flags);
  const given = await namedSources(flags.calibration);
  const reader = new AnswerReader(model);
  const parts: WeightedSet[] = [];
  for (const { name, weight } of given.length === 0 ? [{ name: undefined, weight: 1 }] : given) {
    parts.push({ weight, ...(await openSource(name, objective, model, flags, reader, terminal)) });
  }
  if (objective === "answer" && !parts.some(({ answers }) => answers)) {
    throw new InputError(
      `--objective answer needs answers, and ${parts.map(({ name }) => quoted(name)).join(", ")} has none`,
      {
        hint: "give records with a prompt and an answer, conversations, or -c ruler:vt,niah_multikey_2",
      },
    );
  }
  return mixSets(parts);
}

async function openSource(
  name: string | undefined,
  objective: SearchObjective,
  model: ModelDescription,
  flags: MixFlags,
  reader: AnswerReader,
  terminal: Terminal,
): Promise<Omit<WeightedSet, "weight">> {
  const generated = name === undefined ? undefined : generatedOf(name);
  if (name !== undefined && generated !== undefined) {
    const seed = calibrationSeed(flags.seed);
    const set = await reader.generate(name, generated, seed, flags, terminal.signal);
    const answers = objective === "answer";
    tell(set, terminal, answers);
    return { name, answers, seed, set: answers ? set : everyToken(set) };
  }
  if (name !== undefined && objective === "answer") {
    const set = await loadAnswers(name, model.config, (record) => reader.encode(record), {
      ...flags,
      signal: terminal.signal,
    });
    if (set !== undefined) {
      tell(set, terminal, true);
      return { name, answers: true, set };
    }
  }
  const set = await openCalibrationSet(model, name, flags, terminal);
  return { name: set.source, answers: false, set };
}

function everyToken(set: CalibrationSet): CalibrationSet {
  return { ...set, scoredFrom: set.windows.map(() => 1), hash: hashWindows(set.windows) };
}

function tell(set: CalibrationSet, terminal: Terminal, answers: boolean): void {
  for (const note of set.notes) terminal.note(note);
  for (const warning of set.warnings) terminal.warn(warning);
  const scored = set.windows.reduce((sum, { length }, index) => sum + length - (set.scoredFrom[index] ?? 1), 0);
  terminal.note(
    `calibration: ${set.windows.length} of ${counted(set.available, "sequence")} of up to ${formatCount(set.sequenceLength)} tokens from ${set.source}` +
      (answers ? `; ${formatCount(scored)} tokens of answers count` : ""),
  );
}

/** What `-c` names, with weights. */
export async function namedSources(texts: readonly string[]): Promise<{ name: string; weight: number }[]> {
  const given = await Promise.all(texts.map(sourceOf));
  const twice = given.find(({ name }, place) => given.some((other, at) => at < place && other.name === name));
  if (twice !== undefined) throw new UsageError(`-c names ${quoted(twice.name)} twice`);
  return given;
}

/** `NAME=WEIGHT`, unless there is something of that very name. */
async function sourceOf(text: string): Promise<{ name: string; weight: number }> {
  const form = /^(?<name>.+)=(?<weight>[^=/\\]*)$/.exec(text)?.groups;
  if (form === undefined || (await isThere(text))) return { name: text, weight: 1 };
  const { name = "", weight: share = "" } = form;
  const weight = /^\d*\.?\d+$/.test(share) ? Number(share) : Number.NaN;
  if (!(weight > 0)) throw new UsageError(`-c ${quoted(text)}: the weight after "=" must be a number above 0`);
  return { name, weight };
}

interface GeneratedSource {
  suite: SuiteName;
  /** All where absent. */
  tasks?: string[];
}

export function generatedOf(text: string): GeneratedSource | undefined {
  const form = /^(?<suite>[a-z]+):(?<tasks>.*?)(=[\d.]*)?$/.exec(text)?.groups;
  const suite = generatedSuites[form?.suite ?? ""];
  if (suite === undefined) return undefined;
  const tasks = (form?.tasks ?? "")
    .split(",")
    .map((task) => task.trim())
    .filter((task) => task !== "");
  return { suite, ...(tasks.length === 0 ? {} : { tasks: [...new Set(tasks)] }) };
}

/** Prompts and answers as ids, exactly as `eval` gives them to the model. */
export class AnswerReader {
  readonly #model: ModelDescription;
  #opened: Promise<{ tokenizer: Tokenizer; assembly: PromptAssembly }> | undefined;

  constructor(model: ModelDescription) {
    this.#model = model;
  }

  async encode({ earlier, prompt, answer, chat }: PromptAndAnswer): Promise<AnswerSequence> {
    const { assembly } = await this.#open();
    const turns = earlier.map(({ role, content }) => {
      if (role === "system" || role === "user" || role === "assistant") return { role, content } as const;
      throw new InputError(
        `a turn is of the role ${quoted(role)}, and only those of system, user and assistant are read`,
      );
    });
    // Behind a chat template the assembly takes it off again.
    const seam = /\s$/.test(prompt) || /^\s/.test(answer) ? "" : "\n";
    const item: EvalItem = {
      id: "",
      task: "calibration",
      prompt: { ...(turns.length === 0 ? {} : { earlier: turns }), user: prompt, answerPrefix: "", chat },
      references: [answer],
      goldAnswer: chat ? seam + answer : answer,
    };
    return assembly.answer(item);
  }

  async generate(
    source: string,
    { suite: name, tasks }: GeneratedSource,
    seed: number,
    flags: TextFlags,
    signal: AbortSignal,
  ): Promise<CalibrationSet> {
    const { tokenizer, assembly } = await this.#open();
    const { config } = this.#model;
    const length = chooseLength(config, flags);
    const { sequences } = flags;
    const open = (samples: number) =>
      openSuite(name, {
        counter: tokenCounter(tokenizer),
        tokenizerHash: tokenizer.hash,
        wrapperTokens: assembly.wrapperTokens,
        window: config.maxPositionEmbeddings,
        lengths: [length],
        samples,
        seed,
        signal,
        ...(tasks === undefined ? {} : { tasks }),
      });
    let suite = await open(SAMPLES_EACH);
    if (sequences !== undefined) suite = await open(Math.ceil(sequences / suite.tasks.length));
    const found: AnswerSequence[] = [];
    for await (const item of suite.items()) {
      signal.throwIfAborted();
      found.push(assembly.answer(item));
    }
    const set = answerSet(source, config, found, { seed: flags.seed, sequences });
    return { ...set, notes: suite.notes.filter((note) => note.includes("does not fit")) };
  }

  #open(): Promise<{ tokenizer: Tokenizer; assembly: PromptAssembly }> {
    this.#opened ??= (async () => {
      const tokenizer = await Tokenizer.load(this.#model.path);
      return { tokenizer, assembly: await openPromptAssembly(tokenizer) };
    })();
    return this.#opened;
  }
}
