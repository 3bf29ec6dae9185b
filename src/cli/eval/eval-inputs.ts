/** From the flags of `eval` to what it works on: model, tokenizer, arms, suite, and the fingerprint of it all. */

import { basename } from "node:path";
import { InputError } from "../../base/errors.ts";
import { toolVersion } from "../../base/version.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import { requireEvaluationSeed } from "../../eval/generated/seeds.ts";
import type { Suite } from "../../eval/item.ts";
import { openPromptAssembly, type PromptAssembly } from "../../eval/prompt-assembly.ts";
import type { Arm } from "../../eval/run/evaluation.ts";
import { openSuite, type SuiteValues } from "../../eval/suites.ts";
import { type TokenBudget, usualThoughtTokens } from "../../eval/token-budget.ts";
import { tokenCounter } from "../../eval/token-counter.ts";
import type { EvalResult } from "../../formats/eval-result.ts";
import { WEIGHTS_NOT_READ } from "../../formats/pattern-schema.ts";
import type { SampleFingerprint } from "../../formats/sample-journal.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { EarlyStart } from "../arguments/early.ts";
import type { GivenOption } from "../arguments/given-options.ts";
import { choosePattern, identityRecord, openDevices } from "../arguments/inputs.ts";
import { openModelToRun } from "../arguments/opening.ts";
import { demoModel } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";
import { serverAnswers } from "../live/server-answers.ts";
import { openServedFolder } from "../live/server-options.ts";
import { splitRetain } from "../pattern/pattern-of-size.ts";
import { type AnswerSource, localAnswers } from "./answer-source.ts";
import { cacheFolder, type EvalFlags } from "./eval-options.ts";
import { overlapNotes } from "./eval-overlap.ts";
import { suiteSettings, suiteSources, suiteValues } from "./suite-flags.ts";

export interface EvalInputs {
  model: ModelDescription;
  tokenizer: Tokenizer;
  assembly: PromptAssembly;
  arms: Arm[];
  suite: Suite;
  source: AnswerSource;
  fingerprint: SampleFingerprint;
  described: EvalResult["settings"];
  /** Items that calibration sets have seen, where that was allowed. */
  overlap: string[];
}

export async function openEvalInputs(
  path: string | undefined,
  flags: EvalFlags,
  terminal: Terminal,
  given: readonly GivenOption[],
): Promise<EvalInputs> {
  const values = suiteValues(flags.suite, { ...flags }, given);
  const opened =
    flags.server === undefined
      ? await openLocal(path, flags, terminal)
      : await openServed(path, { ...flags, server: flags.server }, terminal);
  try {
    return { model: opened.model, ...(await readInputs(opened, flags, values, terminal.signal)) };
  } catch (error) {
    await opened.release();
    throw error;
  }
}

/** Where answers come from, before it is known how many are wanted. */
interface Opened {
  model: ModelDescription;
  window: number;
  /** Takes the patterns as soon as they are known. */
  prepare(patterns: readonly Pattern[]): Promise<void>;
  source(amount: EvalAmount): Promise<AnswerSource>;
  /** Of what became no source. */
  release(): Promise<void>;
}

type EvalAmount = Pick<EvalInputs, "suite" | "assembly" | "arms">;

async function openLocal(path: string | undefined, flags: EvalFlags, terminal: Terminal): Promise<Opened> {
  const early = new EarlyStart("answers", flags, terminal);
  const model = await openModelToRun(path ?? demoModel, flags, terminal);
  const window = model.config.maxPositionEmbeddings;
  return {
    ...{ model, window },
    prepare: (patterns) => early.foreseeAnswers(model, patterns, flags.lengths),
    source: async (amount) => {
      const place = await openDevices(flags, terminal, {
        work: { model, amount: () => amountOf(amount) },
        onTrial: early.onTrial,
      });
      const source = localAnswers(model, { ...place, dtype: flags.dtype }, early.at(place));
      await model.checkWeights();
      return source;
    },
    release: async () => {},
  };
}

async function openServed(
  path: string | undefined,
  flags: EvalFlags & { server: string },
  terminal: Terminal,
): Promise<Opened> {
  const model = await openServedFolder(path, terminal);
  const source = await serverAnswers(flags, model, terminal);
  return {
    ...{ model, window: source.window },
    prepare: async (patterns) => {
      for (const pattern of patterns) source.require(pattern);
    },
    source: async () => source,
    release: () => source.release(),
  };
}

/** Items that stand for all where tokens are counted. */
const countedItems = 16;

/** What there is to answer, if every answer is as long as it may be. */
async function amountOf({ suite, assembly, arms }: EvalAmount) {
  const budgets = new Map(suite.tasks.map(({ name, maxNewTokens }) => [name, maxNewTokens]));
  let items = 0;
  let passed = 0;
  let decoded = 0;
  for await (const item of suite.items()) {
    if (items === countedItems) break;
    items++;
    passed += assembly.prompt(item).ids.length;
    decoded += budgets.get(item.task) ?? 0;
  }
  // Of records nobody knows how many there are before they are read: a full count stands for many.
  const all = suite.total ?? (items < countedItems ? items : manyItems);
  const times = (arms.length * all) / Math.max(1, items);
  return { passed: passed * times, decoded: decoded * times, sideBySide: Math.max(1, all) };
}

const manyItems = 200;

async function readInputs(
  opened: Opened,
  flags: EvalFlags,
  values: SuiteValues,
  signal: AbortSignal,
): Promise<Omit<EvalInputs, "model">> {
  const { model, window } = opened;
  const arms = await chooseArms(model, flags);
  await opened.prepare(arms.map(({ pattern }) => pattern));
  const tokenizer = await Tokenizer.load(model.path);
  const assembly = await openPromptAssembly(tokenizer, {
    chatTemplate: flags.chatTemplate,
    thinking: flags.thinking === true,
  });
  const suite = await chooseSuite(window, tokenizer, assembly, flags, values, signal);
  if (suite.tasks.length === 0) {
    const [first] = suite.skipped;
    throw new InputError(
      `Suite ${suite.name} has no task to run`,
      first === undefined ? {} : { hint: `${first.task} ${first.reason}` },
    );
  }
  const overlap = await overlapNotes(
    model.path,
    [flags.baseline, ...flags.pattern],
    suite,
    assembly,
    flags.allowOverlap === true,
    signal,
  );
  const identity = await identityRecord(model);
  const source = await opened.source({ suite, assembly, arms });
  const settings = {
    seed: flags.seed,
    ...source.settings,
    thinking: flags.thinking === true,
    max_new_tokens: describeBudget(budgetOf(window, flags)),
    temperature: flags.temperature ?? 0,
    ...suiteSettings(flags.suite, values),
  };
  return {
    ...{ tokenizer, assembly, arms, suite, source },
    fingerprint: {
      model_name: identity.name,
      model_config_hash: identity.config_hash,
      weight_hash: identity.weight_hash ?? WEIGHTS_NOT_READ,
      tokenizer_hash: tokenizer.hash,
      chat_template: assembly.template,
      chat_template_hash: assembly.templateHash ?? null,
      suite: suite.name,
      suite_version: suite.version,
      settings,
      tool_version: toolVersion,
    },
    described: describe(flags, values),
    overlap,
  };
}

/** The baseline and the arms; names tell those of one pattern apart. */
async function chooseArms(model: ModelDescription, { baseline, pattern: patterns, offset }: EvalFlags): Promise<Arm[]> {
  const arms: Arm[] = [];
  for (const text of [baseline, ...patterns]) {
    const pattern: Pattern = await choosePattern(model, { pattern: text, offset });
    const repeat = arms.filter((arm) => arm.pattern === pattern).length;
    const { path, retain } = splitRetain(text);
    const name = retain === undefined ? basename(path) : `${basename(path)}@${retain}`;
    const same = arms.filter((arm) => arm.name === name || arm.name.startsWith(`${name} (`)).length;
    arms.push({ name: same === 0 ? name : `${name} (${same + 1})`, pattern, repeat });
  }
  return arms;
}

function chooseSuite(
  window: number,
  tokenizer: Tokenizer,
  assembly: PromptAssembly,
  flags: EvalFlags,
  values: SuiteValues,
  signal: AbortSignal,
): Promise<Suite> {
  const { suite, tasks, limit, seed } = flags;
  requireEvaluationSeed(seed);
  const folder = cacheFolder(flags);
  return openSuite(suite, {
    ...values,
    counter: tokenCounter(tokenizer),
    tokenizerHash: tokenizer.hash,
    wrapperTokens: assembly.wrapperTokens,
    seed,
    window,
    budget: budgetOf(window, flags),
    signal,
    ...(tasks === undefined ? {} : { tasks }),
    ...(limit === undefined ? {} : { limit }),
    ...(folder === undefined ? {} : { cacheFolder: folder }),
  });
}

function budgetOf(window: number, { maxNewTokens, thinking }: EvalFlags): TokenBudget {
  return {
    tasks: new Map(),
    ...maxNewTokens,
    thought: thinking === true ? usualThoughtTokens(window) : 0,
  };
}

/** "own", "own+16384", "vt=64,512": for the fingerprint, and for people. */
function describeBudget({ all, tasks, thought = 0 }: TokenBudget): string {
  const own = thought === 0 ? "own" : `own+${thought}`;
  return [...[...tasks].sort().map(([task, tokens]) => `${task}=${tokens}`), String(all ?? own)].join(",");
}

/** What was asked for, for the record; prompts are told apart by their own hashes. */
function describe({ suite, tasks, limit }: EvalFlags, values: SuiteValues): EvalResult["settings"] {
  return { ...withoutUndefined({ limit, tasks: tasks?.join(",") }), ...suiteSources(suite, values) };
}
