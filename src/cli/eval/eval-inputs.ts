/** From the flags of `eval` to what it works on: model, tokenizer, arms, suite, and the fingerprint of it all. */
import { basename } from "node:path";
import { InputError, UsageError } from "../../base/errors.ts";
import { toolVersion } from "../../base/version.ts";
import { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import type { Suite } from "../../eval/item.ts";
import { openPromptAssembly, type PromptAssembly } from "../../eval/prompt-assembly.ts";
import type { Arm } from "../../eval/run/evaluation.ts";
import { openSuite, type SuiteValues } from "../../eval/suites.ts";
import { type TokenBudget, usualThoughtTokens } from "../../eval/token-budget.ts";
import type { EvalResult } from "../../formats/eval-result.ts";
import { WEIGHTS_NOT_READ } from "../../formats/pattern-file.ts";
import type { SampleFingerprint } from "../../formats/sample-journal.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { LossPlace } from "../../runtime/loss/loss.ts";
import type { GivenOption } from "../arguments/given-options.ts";
import { choosePattern, identityRecord, openDevices } from "../arguments/inputs.ts";
import { openModelToRun } from "../arguments/opening.ts";
import type { Terminal } from "../console/terminal.ts";
import { cacheFolder, type EvalFlags } from "./eval-options.ts";
import { suiteSettings, suiteSources, suiteValues } from "./suite-flags.ts";

export interface EvalInputs {
  model: ModelFolder;
  tokenizer: Tokenizer;
  assembly: PromptAssembly;
  arms: Arm[];
  suite: Suite;
  place: LossPlace & { threads?: number };
  fingerprint: SampleFingerprint;
  described: EvalResult["settings"];
}

/** @throws UsageError for devices of several kinds */
function kindOfDevices(place: LossPlace): string {
  const devices = "devices" in place ? place.devices : [place.device];
  const kinds = [...new Set(devices.map((device) => device.split(":")[0]))];
  const [kind = "cpu"] = kinds;
  if (kinds.length === 1) return kind;
  throw new UsageError(
    `--devices names ${kinds.join(" and ")}: samples of different kinds of devices cannot be paired`,
  );
}

export async function openEvalInputs(
  path: string,
  flags: EvalFlags,
  terminal: Terminal,
  given: readonly GivenOption[],
  signal: AbortSignal,
): Promise<EvalInputs> {
  const values = suiteValues(flags.suite, { ...flags }, given);
  const model = await openModelToRun(path, flags, terminal, signal);
  const arms = await chooseArms(model, flags);
  const tokenizer = await Tokenizer.load(model.path);
  const assembly = await openPromptAssembly(tokenizer, {
    chatTemplate: flags.chatTemplate,
    thinking: flags.thinking === true,
  });
  const suite = await chooseSuite(model, tokenizer, assembly, flags, values, signal);
  if (suite.tasks.length === 0) {
    const [first] = suite.skipped;
    throw new InputError(
      `Suite ${suite.name} has no task to run`,
      first === undefined ? {} : { hint: `${first.task} ${first.reason}` },
    );
  }
  const place = await openDevices(flags, terminal);
  const identity = await identityRecord(model);
  const settings = {
    seed: flags.seed,
    // Another kind of device rounds otherwise: a near tie may fall to another token, and pairs would mix the two.
    device: kindOfDevices(place),
    dtype: "float32",
    thinking: flags.thinking === true,
    max_new_tokens: describeBudget(budgetOf(model, flags)),
    temperature: flags.temperature ?? 0,
    ...suiteSettings(flags.suite, values),
  };
  return {
    model,
    tokenizer,
    assembly,
    arms,
    suite,
    place,
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
  };
}

/** The baseline and the arms; names tell those of one pattern apart. */
async function chooseArms(model: ModelFolder, { baseline, pattern: patterns, offset }: EvalFlags): Promise<Arm[]> {
  const arms: Arm[] = [];
  for (const text of [baseline, ...patterns]) {
    const pattern: Pattern = await choosePattern(model, { pattern: text, offset });
    const repeat = arms.filter((arm) => arm.pattern === pattern).length;
    const name = basename(text);
    const same = arms.filter((arm) => arm.name === name || arm.name.startsWith(`${name} (`)).length;
    arms.push({ name: same === 0 ? name : `${name} (${same + 1})`, pattern, repeat });
  }
  return arms;
}

function chooseSuite(
  model: ModelFolder,
  tokenizer: Tokenizer,
  assembly: PromptAssembly,
  flags: EvalFlags,
  values: SuiteValues,
  signal: AbortSignal,
): Promise<Suite> {
  const { suite, tasks, limit, seed } = flags;
  const folder = cacheFolder(flags);
  return openSuite(suite, {
    ...values,
    counter: {
      encode: (text) => tokenizer.encodePlain(text),
      decode: (ids) => tokenizer.decode(ids),
      specialTokens: tokenizer.encode("x").length - tokenizer.encodePlain("x").length,
    },
    tokenizerHash: tokenizer.hash,
    wrapperTokens: assembly.wrapperTokens,
    seed,
    window: model.config.maxPositionEmbeddings,
    budget: budgetOf(model, flags),
    signal,
    ...(tasks === undefined ? {} : { tasks }),
    ...(limit === undefined ? {} : { limit }),
    ...(folder === undefined ? {} : { cacheFolder: folder }),
  });
}

function budgetOf(model: ModelFolder, { maxNewTokens, thinking }: EvalFlags): TokenBudget {
  return {
    tasks: new Map(),
    ...maxNewTokens,
    thought: thinking === true ? usualThoughtTokens(model.config.maxPositionEmbeddings) : 0,
  };
}

/** "own", "own+16384", "vt=64,512": for the fingerprint, and for people. */
function describeBudget({ all, tasks, thought = 0 }: TokenBudget): string {
  const own = thought === 0 ? "own" : `own+${thought}`;
  return [...[...tasks].sort().map(([task, tokens]) => `${task}=${tokens}`), String(all ?? own)].join(",");
}

/** What was asked for, for the record; prompts are told apart by their own hashes. */
function describe({ suite, tasks, limit }: EvalFlags, values: SuiteValues): EvalResult["settings"] {
  return {
    ...(limit === undefined ? {} : { limit }),
    ...(tasks === undefined ? {} : { tasks: tasks.join(",") }),
    ...suiteSources(suite, values),
  };
}
