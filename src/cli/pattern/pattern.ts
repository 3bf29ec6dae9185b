/** `indexcache pattern`: a pattern for a serving engine, checked before it is served. */

import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import { makeFolder, writeFileAtomically } from "../../base/files.ts";
import { counted } from "../../base/quantities.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { patchConfig } from "../../engines/applied/config-patch.ts";
import {
  checkPattern,
  type EngineCheck,
  type Finding,
  hasErrors,
  indexerLetters,
  isChecked,
  isPipelineEngine,
} from "../../engines/check.ts";
import type { Dialect } from "../../engines/dialect.ts";
import { dialectAt, engineNames } from "../../engines/engines.ts";
import { type IndexFields, lettersOfTypes } from "../../engines/index-fields.ts";
import type { PatternSource } from "../../engines/pattern-source.ts";
import { configPath, type ServedModel } from "../../engines/served-model.ts";
import { readText, readTextIfPresent } from "../../formats/text-file.ts";
import { countFull, parsePattern } from "../../pattern/pattern.ts";
import { partitionStarts, stageStarts } from "../../pattern/pipeline-stages.ts";
import { engineOutcomes, formatFacts, formatFindings, formatOutcomes } from "../../report/pattern-report.ts";
import { choice, type Flags, group, option } from "../arguments/declared-option.ts";
import { layerCount, outputOptions, wholeNumber } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { addPatternApplyCommand, refusedPattern } from "./pattern-apply.ts";
import { lettersOf, modelOf, originFindings, readSource, requestedFields } from "./pattern-input.ts";
import { list, pointToShelf } from "./pattern-list.ts";

const options = [
  ...group(
    "What is wanted:",
    option("--list", "list the patterns that come with the package; with a MODEL, those for it"),
    choice("--for <engine>", "print the complete argument for this engine", engineNames),
    choice("--engine <engine>", "whose rules --check applies (default: --for)", engineNames),
    option("--engine-version <version>", "release of that engine whose rules apply (default: the newest known)"),
  ),
  ...group(
    "Model and deployment:",
    option("-m, --model <path>", "config.json of the model, or its folder"),
    option("--layers <n>", "backbone layers, where there is no --model", layerCount),
    option("--offset <n>", "index_skip_topk_offset of freq:N (default: the engines' own)", wholeNumber),
  ),
  ...group(
    "What is wanted:",
    option("--check", "say what is wrong with the pattern"),
    option("--explain", "show which layers each engine would make Full"),
  ),
  ...group(
    "Model and deployment:",
    option("--pipeline-stages <n>", "pipeline stages that the engine splits the layers into", layerCount),
    option("--pipeline-partition <list>", "their sizes, where they are set by hand: 16,15,15,15", partition).conflicts(
      "pipelineStages",
    ),
  ),
  ...group(
    "Files:",
    option("--write-config <folder>", "write a copy of --model's config.json with the pattern in it here"),
    option("--overwrite", "let --write-config replace another config.json"),
  ),
  refusedPattern("indexcache pattern PATTERN"),
  ...outputOptions,
] as const;

type PatternFlags = Flags<typeof options>;

const help = `
PATTERN is a pattern file, a name from the shelf (--list: zai-org/GLM-5/half), letters F and S, uniform:N (FSSS for 4), freq:N (the
engines' rule), a config.json or the folder of one, or text with an override in it: a command line of a server, a launch
script, a Dockerfile, a YAML or Python file, an options file. p.json@1/2 is one of several sizes. - reads stdin.

Without --for, --check or --explain the letters are printed. --for prints what to paste; a pattern that the engine would not
run as it stands is refused. --check prints errors and warnings apart; errors exit with 2.

--list MODEL shows what the shelf has for a model, by the folder, its config.json, or its name: its own patterns, and only
where it has none those of models of the same shape, as borrowed.

Examples:
  $ indexcache pattern quarter.json --for vllm
  $ indexcache pattern --list ./GLM-5.1
  $ indexcache pattern zai-org/GLM-5/quarter --for sglang --engine-version 0.5.19
  $ indexcache pattern quarter.json --for transformers --model ./GLM-5 --write-config ./patched
  $ indexcache pattern zai-org/GLM-5/half --check --engine vllm --pipeline-stages 4
  $ indexcache pattern FFSF... --model config.json --check --engine sglang
  $ indexcache pattern freq:4 --layers 61 --explain
  $ indexcache pattern "vllm serve M --hf-overrides '{...}'" --for sglang`;

export function addPatternCommand(program: Command): void {
  const command = program
    .command("pattern")
    .description("Write a pattern as a serving engine takes it, or check one that is about to be served")
    .argument("[pattern]", "a pattern in any form, see below");
  const shown = "list for engine engine-version model check explain pipeline-stages write-config json";
  addWork(command, { options, help, shown }, run);
  addPatternApplyCommand(command);
}

async function run(text: string | undefined, flags: PatternFlags, terminal: Terminal): Promise<void> {
  requireSensibleFlags(flags);
  if (flags.list === true) return await list(text ?? flags.model, flags.json === true, terminal);
  if (text === undefined) {
    throw new UsageError("PATTERN is missing", {
      hint: "indexcache pattern --list shows those that come with the package",
    });
  }
  const dialect = chooseDialect(flags, terminal);
  const source = await readSource(text);
  const model = await modelOf(source, flags);
  if (flags.explain === true) return explain(source, model, dialect, flags, terminal);
  const letters = lettersOf(source, model, dialect, flags);
  const origin = await originFindings(letters, source, model);
  const asked: Asked = { letters, source, model, origin, flags, terminal };
  if (flags.check === true) return check(asked, dialect);
  if (flags.for !== undefined && dialect !== undefined) return await emit(asked, dialect);
  printLetters(asked);
  if (source.kind === "config") await pointToShelf(model, text, terminal);
}

/** A pattern that was read. */
interface Asked {
  letters: string;
  source: PatternSource;
  model: ServedModel;
  /** What is known of where the letters come from, and speaks against them. */
  origin: readonly Finding[];
  flags: PatternFlags;
  terminal: Terminal;
}

function requireSensibleFlags(flags: PatternFlags): void {
  if (flags.model !== undefined && flags.layers !== undefined) {
    throw new UsageError("--layers is for a model without a config; --model says how many layers it has");
  }
  if (flags.writeConfig !== undefined && (flags.for === undefined || flags.model === undefined)) {
    throw new UsageError("--write-config needs --model, whose config.json it copies, and --for, whose fields it sets");
  }
  if (flags.overwrite === true && flags.writeConfig === undefined)
    throw new UsageError("--overwrite belongs to --write-config");
  const engine = flags.engine ?? flags.for;
  if ((flags.pipelineStages ?? flags.pipelinePartition) !== undefined && engine === undefined) {
    throw new UsageError("--pipeline-stages needs --engine or --for: engines split layers in different ways");
  }
  if (flags.for !== undefined && flags.engine !== undefined && flags.for !== flags.engine) {
    throw new UsageError(`--for ${flags.for} and --engine ${flags.engine} name two engines; one is enough`);
  }
}

/** The rules of the engine that was named, in the release that was named. */
function chooseDialect(flags: PatternFlags, terminal: Terminal): Dialect | undefined {
  const engine = flags.engine ?? flags.for;
  if (engine === undefined) return undefined;
  const { dialect, note } = dialectAt(engine, flags.engineVersion);
  if (note !== undefined) terminal.warn(note);
  return dialect;
}

function engineCheck({ source, model, flags }: Asked, dialect: Dialect): EngineCheck {
  return {
    dialect,
    starts: startsOf(model, dialect, flags),
    // A pattern that somebody else wrote down is checked as it stands, not as we would write it.
    ...(flags.for === undefined && source.kind === "override" ? { given: source } : {}),
    ...(flags.for === undefined && source.kind === "config" ? { given: { fields: source.fields } } : {}),
  };
}

function startsOf(model: ServedModel, dialect: Dialect, flags: PatternFlags): number[] | undefined {
  if (flags.pipelinePartition !== undefined) return partitionStarts(flags.pipelinePartition, model.layers);
  if (flags.pipelineStages === undefined) return undefined;
  const { engine, title, facts } = dialect;
  if (!isPipelineEngine(engine)) throw new UsageError(`${title} has no pipeline stages here: ${facts.pipeline}`);
  return stageStarts(engine, model.layers, flags.pipelineStages);
}

function check(asked: Asked, dialect: Dialect | undefined): void {
  const { letters, model, origin, terminal } = asked;
  const applied = dialect === undefined ? undefined : engineCheck(asked, dialect);
  const findings = [...checkPattern(letters, model, applied), ...origin];
  const failed = hasErrors(findings);
  const errors = messages(findings, "error");
  const record = {
    index_topk_pattern: letters,
    model: { name: model.name, model_type: model.modelType, layers: model.layers, indexers: model.indexers.length },
    checked: isChecked(model),
    engine: dialect?.engine ?? null,
    engine_version: dialect?.version ?? null,
    read_from: dialect?.readFrom ?? null,
    pipeline_stage_starts: applied?.starts ?? null,
    errors,
    warnings: messages(findings, "warning"),
    ways_out: findings.flatMap(({ waysOut }) => waysOut ?? []),
  };
  terminal.answer(record, () => {
    const stages = applied?.starts === undefined ? "" : `, stages at layers ${applied.starts.join(", ")}`;
    const by = dialect === undefined ? "" : ` by ${titleOf(dialect)}`;
    const body = formatFindings(findings);
    return `${body === "" ? "" : `${body}\n`}${describe(letters, model)}: ${verdictOf(failed, model)}${by}${stages}`;
  });
  if (failed) throw new InputError(`The pattern has ${counted(errors.length, "error")}`);
}

function verdictOf(failed: boolean, model: ServedModel): string {
  if (!isChecked(model)) return "not checked, so not to be served yet";
  return failed ? "not to be served" : "can be served";
}

/** `vLLM 0.33.0`; the name alone of an engine that was read at a commit. */
function titleOf({ title, version }: Dialect): string {
  return version === undefined ? title : `${title} ${version}`;
}

function messages(findings: ReturnType<typeof checkPattern>, severity: "error" | "warning"): string[] {
  return findings.filter((finding) => finding.severity === severity).map(({ message }) => message);
}

function explain(
  source: PatternSource,
  model: ServedModel,
  dialect: Dialect | undefined,
  flags: PatternFlags,
  terminal: Terminal,
): void {
  const fields = requestedFields(source, model, flags);
  const outcomes = engineOutcomes(fields, model, dialect);
  const asked = Object.entries(fields).flatMap(([name, value]) =>
    value == null ? [] : [`${name}=${Array.isArray(value) ? (lettersOfTypes(value) ?? value.join()) : value}`],
  );
  terminal.answer(
    { fields, layers: model.layers, indexers: model.indexers.length, engines: outcomes },
    () => `${asked.join(", ")}\n\n${formatOutcomes(outcomes, model)}`,
  );
  if (flags.json === true) return;
  terminal.detail(formatFacts());
}

function printLetters({ letters, model, origin, flags, terminal }: Asked): void {
  // What is printed is pasted: letters that mean nothing to an engine are not.
  parsePattern(letters, "The pattern");
  for (const { message } of origin) terminal.warn(message);
  const own = indexerLetters(letters, model);
  const full = model.indexers.filter((_, ordinal) => own[ordinal] === "F");
  terminal.answer({ index_topk_pattern: letters, layers: model.layers, full_layers: full }, () => letters);
  if (flags.json === true) return;
  terminal.note(describe(letters, model));
  if (flags.model === undefined) return;
  for (const { message } of checkPattern(letters, model)) terminal.warn(message);
}

async function emit(asked: Asked, dialect: Dialect): Promise<void> {
  const { letters, model, origin, flags, terminal } = asked;
  // What is emitted has the length that its source has; whether that is the model's is for --check to say.
  const { layersAssumed: _, ...known } = model;
  const findings = [...checkPattern(letters, known, engineCheck(asked, dialect)), ...origin];
  const fault = findings.find(({ severity, waysOut }) => severity === "error" && waysOut === undefined);
  if (fault !== undefined) {
    throw new InputError(`This pattern is not to be served by ${titleOf(dialect)}: ${fault.message}`, {
      hint: "--check lists all errors and warnings",
    });
  }
  // The argument is right for a checkpoint that the ways out lead to.
  for (const { message, waysOut = [] } of findings) {
    terminal.warn(message);
    for (const way of waysOut) terminal.note(`  - ${way}`);
  }
  const fields = dialect.fields(parsePattern(indexerLetters(letters, model)), model);
  if (flags.writeConfig !== undefined && flags.model !== undefined) {
    const written = await writeConfig(flags.model, flags.writeConfig, dialect, fields, flags.overwrite === true);
    terminal.note(`written: ${written}`);
  }
  const lines = dialect.argument(fields);
  terminal.note(`${describe(letters, model)}, for ${dialect.title} (read from ${dialect.readFrom})`);
  terminal.answer(
    {
      engine: dialect.engine,
      engine_version: dialect.version ?? null,
      read_from: dialect.readFrom,
      index_topk_pattern: letters,
      fields,
      argument: lines,
      warnings: findings.map(({ message }) => message),
      ways_out: findings.flatMap(({ waysOut }) => waysOut ?? []),
    },
    () => lines.join("\n"),
  );
}

/** A patched copy of the model's config.json in `folder`. An equal file is left alone, another one only replaced if asked. */
async function writeConfig(
  model: string,
  folder: string,
  dialect: Dialect,
  fields: IndexFields,
  overwrite: boolean,
): Promise<string> {
  const source = await configPath(await findModel(model));
  const original = await readText(source, `"${source}"`);
  const patched = patchConfig(original, fields, dialect.configKeeps);
  const target = join(folder, "config.json");
  const present = await readTextIfPresent(target, `"${target}"`);
  if (present === patched) return target;
  if (present !== undefined && !overwrite) {
    throw new InputError(`"${target}" exists already and says something else`, {
      hint: "--overwrite replaces it; another folder keeps both",
    });
  }
  await makeFolder(folder, { what: `Cannot write "${target}"` });
  await writeFileAtomically(target, patched);
  return target;
}

function describe(letters: string, model: ServedModel): string {
  const own = indexerLetters(letters, model);
  const full = countFull(own);
  const share = own.length === 0 ? "" : ` (${((100 * full) / own.length).toFixed(1)}%)`;
  return `${full} of ${own.length} layers Full${share}`;
}

/** Parses `16,15,15,15`. */
function partition(text: string): number[] {
  if (!/^\d+(,\d+)*$/.test(text))
    throw new InvalidArgumentError("It must be whole numbers with commas between: 16,15,15,15.");
  return text.split(",").map(Number);
}
