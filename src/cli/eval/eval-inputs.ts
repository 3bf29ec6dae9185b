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
import { WEIGHTS_NOT_READ } from "../../formats/pattern-file.ts";
import type { SampleFingerprint } from "../../formats/sample-journal.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
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
  signal: AbortSignal,
): Promise<EvalInputs> {
  const values = suiteValues(flags.suite, { ...flags }, given);
  const { model, source } = await openSource(path, flags, terminal, signal);
  try {
    return { model, source, ...(await readInputs(model, source, flags, values, signal)) };
  } catch (error) {
    await source.release();
    throw error;
  }
}

async function openSource(
  path: string | undefined,
  flags: EvalFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<{ model: ModelDescription; source: AnswerSource }> {
  const { server } = flags;
  if (server === undefined) {
    const model = await openModelToRun(path ?? demoModel, flags, terminal, signal);
    return { model, source: localAnswers(model, { ...(await openDevices(flags, terminal)), dtype: flags.dtype }) };
  }
  const model = await openServedFolder(path, terminal);
  return { model, source: await serverAnswers({ ...flags, server }, model, terminal, signal) };
}

async function readInputs(
  model: ModelDescription,
  source: AnswerSource,
  flags: EvalFlags,
  values: SuiteValues,
  signal: AbortSignal,
): Promise<Omit<EvalInputs, "model" | "source">> {
  const { window } = source;
  const arms = await chooseArms(model, flags);
  for (const { pattern } of arms) source.require(pattern);
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
  const settings = {
    seed: flags.seed,
    ...source.settings,
    thinking: flags.thinking === true,
    max_new_tokens: describeBudget(budgetOf(window, flags)),
    temperature: flags.temperature ?? 0,
    ...suiteSettings(flags.suite, values),
  };
  return {
    tokenizer,
    assembly,
    arms,
    suite,
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
