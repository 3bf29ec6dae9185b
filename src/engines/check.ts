/**
 * The validator that serving engines lack: what is wrong with a pattern for a model, and what an engine would make of
 * it. Errors are what must not be served; warnings are what a user has to know.
 */

import { counted } from "../base/quantities.ts";
import { parsePattern } from "../pattern/pattern.ts";
import { type PipelineEngine, pipelineEngines, requiredFull } from "../pattern/pipeline-stages.ts";
import { nativeLetters } from "./derived-types.ts";
import type { Dialect } from "./dialect.ts";
import { type IndexFields, indexerTypes, indexFieldNames } from "./index-fields.ts";
import type { ServedModel } from "./served-model.ts";

export interface Finding {
  severity: "error" | "warning";
  message: string;
  /** What a user can do so that the pattern is served all the same. */
  waysOut?: readonly string[];
}

/** Fields as a user hands them to an engine, where they are not ours. */
interface GivenOverride {
  fields: IndexFields;
  flag?: string | undefined;
  nestedUnder?: string | undefined;
  /** Every option of the command line that they came with. */
  options?: readonly string[];
}

export interface EngineCheck {
  dialect: Dialect;
  /** First layers of the pipeline stages; undefined without stages. */
  starts?: readonly number[] | undefined;
  /** Where absent, what the dialect itself would write is checked. */
  given?: GivenOverride;
}

/** Layers that a message names one by one. */
const LISTED = 6;

/**
 * The pattern's letters for the layers that have an indexer. DeepSeek-V4 patterns come with a letter for each of those,
 * or for every layer.
 */
export function indexerLetters(letters: string, model: ServedModel): string {
  if (model.family === "dsa" || letters.length !== model.layers || letters.length === model.indexers.length) {
    return letters;
  }
  return model.indexers.map((layer) => letters[layer]).join("");
}

/**
 * Everything that is wrong, most basic first; nothing for a pattern that can be served.
 * @param letters as they were written
 */
export function checkPattern(letters: string, model: ServedModel, engine?: EngineCheck): Finding[] {
  const own = indexerLetters(letters, model);
  const form = [...checkAlphabet(letters), ...checkLength(letters, own, model, engine), ...checkFirst(own, engine)];
  const findings = [...(form.length > 0 ? form : checkNative(own, model)), ...checkKnown(letters, model)];
  if (engine === undefined) return findings;
  const refusal = engine.dialect.refusal(model);
  if (refusal !== undefined) return [...findings, error(refusal)];
  const caveats = engine.dialect.caveats(model).map(warning);
  if (form.length > 0) return [...findings, ...caveats];
  return [
    ...findings,
    ...checkHandover(own, model, engine),
    ...checkLoading(own, model, engine),
    ...checkStages(own, model, engine),
    ...caveats,
  ];
}

export function hasErrors(findings: readonly Finding[]): boolean {
  return findings.some(({ severity }) => severity === "error");
}

/** Was there anything to compare the pattern's length with? */
export function isChecked(model: ServedModel): boolean {
  return model.layersAssumed !== true;
}

/** A pattern that could not be compared with a model has not passed. */
function checkKnown(letters: string, model: ServedModel): Finding[] {
  if (isChecked(model)) return [];
  return [
    error(
      `how many layers the model has is not known, so that ${counted(letters.length, "letter")} may be too few or too many: give --model or --layers`,
    ),
  ];
}

/** Does the engine start with this checkpoint and these options? */
function checkLoading(own: string, model: ServedModel, { dialect, given }: EngineCheck): Finding[] {
  const option = dialect.optionFault?.(given?.options ?? [], own);
  const fault = dialect.loadFault?.(own, model);
  return [
    ...(option === undefined ? [] : [error(option)]),
    ...(fault === undefined ? [] : [{ ...(fault.certain ? error : warning)(fault.message), waysOut: fault.waysOut }]),
  ];
}

function checkAlphabet(letters: string): Finding[] {
  if (letters === "") return [error("the pattern is empty")];
  const lower = layersWhere(letters, (letter) => letter === "f" || letter === "s");
  const foreign = layersWhere(letters, (letter) => !/[FSfs]/.test(letter));
  return [
    ...(lower.length === 0
      ? []
      : [
          error(
            `${counted(lower.length, "letter")} in lower case, at ${named(lower)}: engines compare with "S" and take "s" for Full without a word`,
          ),
        ]),
    ...(foreign.length === 0
      ? []
      : [
          error(`"${letters[foreign[0] ?? 0]}" at ${named(foreign)} is no letter of a pattern: F is Full, S is Shared`),
        ]),
  ];
}

function checkLength(letters: string, own: string, model: ServedModel, engine: EngineCheck | undefined): Finding[] {
  if (letters === "" || own.length === model.indexers.length) return [];
  const expected =
    model.family === "v4"
      ? `${model.indexers.length} layers with an indexer (C4A) among ${model.layers}`
      : counted(model.layers, "backbone layer");
  const prediction =
    model.predictionLayers > 0 && own.length === model.layers + model.predictionLayers
      ? "; prediction (MTP) layers have no letter"
      : "";
  const then =
    own.length < model.indexers.length && engine !== undefined
      ? `; ${engine.dialect.title}: ${engine.dialect.facts.shortPattern}`
      : "";
  return [error(`the pattern has ${counted(letters.length, "letter")}, the model ${expected}${prediction}${then}`)];
}

function checkFirst(own: string, engine: EngineCheck | undefined): Finding[] {
  if (own[0]?.toUpperCase() !== "S") return [];
  const then = engine === undefined ? "" : `: ${engine.dialect.leadingShared}`;
  return [error(`the first layer is S, and there is no layer before it to share from${then}`)];
}

/** Layers that the checkpoint made Shared in training have no indexer to run. */
function checkNative(own: string, model: ServedModel): Finding[] {
  if (model.family !== "dsa") return [];
  const { shipped } = model;
  if (shipped !== undefined) {
    const missing = layersWhere(own, (letter, layer) => letter === "F" && shipped[layer] === "S");
    return missing.length === 0
      ? []
      : [error(`${named(missing)} ${isAre(missing)} F, and the checkpoint has no indexer weights there`)];
  }
  const native = nativeLetters(model);
  const trained = layersWhere(own, (letter, layer) => letter === "F" && native?.[layer] === "S");
  if (trained.length > 0) {
    return [
      error(
        `${named(trained)} ${isAre(trained)} F, and Shared in the config: such layers were trained without an indexer (a look at the weights tells for sure: give the checkpoint's folder)`,
      ),
    ];
  }
  return [];
}

/** Does what is handed over arrive? The engine's own rule is applied to the config as it would see it. */
function checkHandover(own: string, model: ServedModel, { dialect, given }: EngineCheck): Finding[] {
  const written = dialect.fields(parsePattern(own), model);
  const fields = given === undefined ? written : given.fields;
  const route = given === undefined ? [] : checkRoute(given, model, dialect);
  if (route.length > 0) return route;
  const schedule = dialect.schedule(fields, model);
  if ("failure" in schedule) return [error(`${dialect.title} would not start: ${schedule.failure}`)];
  const lost = layersWhere(own, (letter, layer) => schedule.letters[layer] !== letter);
  if (lost.length === 0) return [];
  const outcome = `${dialect.title} would run ${named(lost)} otherwise than the pattern says`;
  return [error(`${outcome}: ${reason(fields, own, model, dialect)}`)];
}

function checkRoute({ flag, nestedUnder }: GivenOverride, model: ServedModel, dialect: Dialect): Finding[] {
  if (flag !== undefined && flag !== dialect.flag) {
    const takes = dialect.flag ?? dialect.instead ?? "a keyword argument of from_pretrained";
    return [error(`${flag} is not how ${dialect.title} takes overrides: it takes ${takes}`)];
  }
  if (nestedUnder !== undefined) {
    return [
      error(
        `the override is inside ${nestedUnder}, which a config of ${model.modelType ?? "this architecture"} does not have: ${dialect.title} would ignore it`,
      ),
    ];
  }
  return [];
}

/** Why the engine ends up with other layers, by trying what the user left out. */
function reason(fields: IndexFields, own: string, model: ServedModel, dialect: Dialect): string {
  const works = (changed: IndexFields): boolean => {
    const schedule = dialect.schedule(changed, model);
    return "letters" in schedule && schedule.letters === own;
  };
  if (works({ ...fields, use_index_cache: true })) return "it ignores the override without use_index_cache";
  const { strongerField } = dialect;
  if (
    strongerField !== undefined &&
    fields[strongerField] == null &&
    works({ ...fields, [strongerField]: indexerTypes(own) })
  ) {
    const given = indexFieldNames.find((name) => fields[name] != null && name !== "use_index_cache") ?? "the override";
    return model.fields[strongerField] == null
      ? `${strongerField} wins over ${given}, and is filled in before overrides are read; the override has to set both`
      : `${strongerField} of config.json wins over ${given}`;
  }
  if (strongerField === undefined && fields.indexer_types != null) return "it does not read indexer_types";
  const read = Object.keys({ ...model.fields, ...fields }).join(", ");
  return `it reads ${read || "nothing"} by rules of its own (--explain shows the outcome)`;
}

function checkStages(own: string, model: ServedModel, { dialect, starts }: EngineCheck): Finding[] {
  if (starts === undefined || starts.length < 2) return [];
  const { engine, title, facts } = dialect;
  if (!isPipelineEngine(engine)) return [warning(`${title} has no pipeline stages: ${facts.pipeline}`)];
  const bad = stageHeads(starts, model).filter(({ ordinal }) => own[ordinal] === "S");
  if (bad.length === 0) return [];
  const heads = bad.map(({ layer, stage }) => `layer ${layer} (stage ${stage})`).join(", ");
  const said = `${bad.length === 1 ? "a pipeline stage begins" : `${bad.length} pipeline stages begin`} with S: ${heads}; ${facts.pipeline}`;
  return requiredFull(engine, starts).length > 1 ? [error(said)] : [warning(said)];
}

/** The first layer with an indexer of each stage; stages without any are left out. */
export function stageHeads(
  starts: readonly number[],
  model: ServedModel,
): { stage: number; layer: number; ordinal: number }[] {
  return starts.flatMap((start, stage) => {
    const end = starts[stage + 1] ?? model.layers;
    const ordinal = model.indexers.findIndex((layer) => layer >= start && layer < end);
    const layer = model.indexers[ordinal];
    return layer === undefined ? [] : [{ stage, layer, ordinal }];
  });
}

export function isPipelineEngine(engine: string): engine is PipelineEngine {
  return (pipelineEngines as readonly string[]).includes(engine);
}

function layersWhere(letters: string, holds: (letter: string, layer: number) => boolean): number[] {
  return [...letters].flatMap((letter, layer) => (holds(letter, layer) ? [layer] : []));
}

/** `layer 5`, `layers 1, 3 and 8`, `14 layers from 2 to 60`. */
function named(layers: readonly number[]): string {
  const last = layers.at(-1);
  if (layers.length <= 1) return `layer ${last}`;
  if (layers.length > LISTED) return `${layers.length} layers from ${layers[0]} to ${last}`;
  return `layers ${layers.slice(0, -1).join(", ")} and ${last}`;
}

function isAre(layers: readonly number[]): string {
  return layers.length === 1 ? "is" : "are";
}

function error(message: string): Finding {
  return { severity: "error", message };
}

function warning(message: string): Finding {
  return { severity: "warning", message };
}
