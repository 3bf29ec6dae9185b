/** From the arguments of `pattern` to letters: where they stand, of which model, and what is known of their origin. */

import { dirname, resolve } from "node:path";
import process from "node:process";
import { InputError, UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { isThere } from "../../base/user-files.ts";
import { findModel, modelName } from "../../checkpoint/hub-cache.ts";
import type { Finding } from "../../engines/check.ts";
import type { Dialect } from "../../engines/dialect.ts";
import { dialects, engineNames } from "../../engines/engines.ts";
import type { IndexFields } from "../../engines/index-fields.ts";
import {
  isInlinePattern,
  type PatternSource,
  patternForms,
  readInlinePattern,
  readPatternText,
} from "../../engines/pattern-source.ts";
import { configPath, modelOfLayers, readServedModel, type ServedModel } from "../../engines/served-model.ts";
import { decodeUtf8 } from "../../formats/lines.ts";
import { isPublished } from "../../formats/published-pattern.ts";
import { LARGEST_DOCUMENT, readText } from "../../formats/text-file.ts";
import { frequencyPattern, requireDistance, uniformPattern } from "../../pattern/schedule.ts";
import { patternOfSize, splitRetain } from "./pattern-of-size.ts";
import { isOfModel, type KnownPattern, knownPatterns, patternPath, readShelf } from "./shelf.ts";

/** What the letters of a schedule, and the model, depend on. */
export interface PatternInputFlags {
  model?: string;
  layers?: number;
  offset?: number;
}

export async function readSource(text: string): Promise<PatternSource> {
  if (text.trim() === "") throw new UsageError("The pattern is empty");
  if (text === "-") {
    const source = readPatternText(await readInput(), "stdin");
    return source.kind === "file" ? ofOneSize(source, undefined, "stdin") : source;
  }
  if (isInlinePattern(text) && !(await isThere(text))) return readInlinePattern(text);
  const { path: named, retain } = (await isThere(text)) ? { path: text } : splitRetain(text);
  const shelved = await patternPath(named);
  // A checkpoint of the Hugging Face cache has a pattern of its own; what is nowhere is told of by who reads it.
  const found = (await isThere(shelved)) ? shelved : await findModel(shelved).catch(() => shelved);
  const path = (await isThere(found)) ? await configPath(found) : found;
  const source = readPatternText(await readText(path, `pattern "${path}"`, { hint: patternForms }), path);
  return source.kind === "file" ? ofOneSize(source, retain, path) : source;
}

function ofOneSize(
  source: Extract<PatternSource, { kind: "file" }>,
  retain: string | undefined,
  path: string,
): PatternSource {
  return { ...source, file: { ...source.file, index_topk_pattern: patternOfSize(source.file, retain, path) } };
}

/** The model to look at: `--model`, the config that the pattern came from, or layers alone. */
export async function modelOf(source: PatternSource, flags: PatternInputFlags): Promise<ServedModel> {
  if (flags.model !== undefined) return readServedModel(await findModel(flags.model));
  if (source.kind === "config") return source.model;
  if (flags.layers !== undefined) return modelOfLayers(flags.layers);
  if (source.kind === "file") {
    const { file } = source;
    return isPublished(file)
      ? modelOfLayers(file.published.layers, file.published.architecture)
      : modelOfLayers(file.model.layers, file.model.architecture);
  }
  const length = source.kind === "letters" ? source.letters.length : fieldLength(source);
  if (length !== undefined) return { ...modelOfLayers(length), layersAssumed: true };
  throw new UsageError("How many layers the pattern is for is not known", {
    hint: "give --model config.json, or --layers N",
  });
}

function fieldLength(source: PatternSource): number | undefined {
  if (source.kind !== "override") return undefined;
  return (source.fields.index_topk_pattern ?? source.fields.indexer_types)?.length;
}

/** The letters that the source stands for; of fields that are not letters, what the engine makes of them. */
export function lettersOf(
  source: PatternSource,
  model: ServedModel,
  dialect: Dialect | undefined,
  flags: PatternInputFlags,
): string {
  switch (source.kind) {
    case "letters":
      return source.letters;
    case "file":
      return source.file.index_topk_pattern;
    case "schedule": {
      const count = model.indexers.length;
      requireDistance(source.every, count, `"${source.rule}:${source.every}"`);
      if (source.rule === "uniform") return uniformPattern(count, source.every);
      return frequencyPattern(count, source.every, flags.offset);
    }
    case "override":
    case "config": {
      const written = source.fields.index_topk_pattern;
      if (typeof written === "string" && (source.kind === "override" || source.fields.indexer_types == null))
        return written;
      return scheduleLetters(source, model, dialect);
    }
  }
}

function scheduleLetters(
  source: Extract<PatternSource, { kind: "override" | "config" }>,
  model: ServedModel,
  dialect: Dialect | undefined,
): string {
  const flag = source.kind === "override" ? source.flag : undefined;
  const named = engineNames.find((name) => flag !== undefined && dialects[name].flag === flag) ?? "transformers";
  const reader = dialect ?? dialects[named];
  // Whatever gate the engine has is for the check to see; here the question is what the fields mean.
  const fields = { ...source.fields, use_index_cache: true };
  const schedule = (fields.indexer_types == null ? reader : dialects.transformers).schedule(fields, model);
  if ("failure" in schedule) throw new InputError(`The pattern cannot be read: ${schedule.failure}`);
  return schedule.letters;
}

/** The config fields that a user would write for this: the frequency itself, not the letters that one engine makes of it. */
export function requestedFields(source: PatternSource, model: ServedModel, flags: PatternInputFlags): IndexFields {
  if (source.kind === "override" || source.kind === "config") return source.fields;
  if (source.kind === "schedule" && source.rule === "freq") {
    const offset = flags.offset === undefined ? {} : { index_skip_topk_offset: flags.offset };
    return { use_index_cache: true, index_topk_freq: source.every, ...offset };
  }
  return { use_index_cache: true, index_topk_pattern: lettersOf(source, model, undefined, flags) };
}

/** What is known of where the letters come from, and speaks against them. */
export async function originFindings(letters: string, source: PatternSource, model: ServedModel): Promise<Finding[]> {
  const file = source.kind === "file" ? source.file : undefined;
  const entry = (await readShelf()).find((one) => isPublished(one.file) && one.file.index_topk_pattern === letters);
  const published = file !== undefined && isPublished(file) ? file : entry?.file;
  const warnings: string[] = [];
  if (published !== undefined && isPublished(published)) {
    const { name, searched_on: searchedOn, remarks, certainty, layers } = published.published;
    if (certainty === "misattributed") {
      warnings.push(`this is ${name}, searched on ${searchedOn}. ${remarks[0] ?? ""}`.trim());
    } else if (
      entry !== undefined &&
      model.path !== undefined &&
      layers === model.layers &&
      !isOfModel(entry, folderOf(model.path))
    ) {
      warnings.push(
        `this pattern is borrowed: it was published for ${entry.model}, and the model is called ${quoted(modelName(folderOf(model.path)))}; measure it there before it is served`,
      );
    }
  }
  const architecture =
    file === undefined ? undefined : isPublished(file) ? file.published.architecture : file.model.architecture;
  if (architecture !== undefined && model.modelType !== undefined && architecture !== model.modelType) {
    warnings.push(
      `the pattern is of a ${architecture} model, the config of a ${model.modelType}: on other weights it says nothing`,
    );
  }
  return warnings.map((message) => ({ severity: "warning", message }));
}

/** What the shelf has for a model. */
export async function knownOf(model: ServedModel): Promise<KnownPattern[]> {
  const { path, modelType, layers } = model;
  return path === undefined ? [] : knownPatterns({ folder: folderOf(path), architecture: modelType, layers });
}

/** The folder of a config.json. */
function folderOf(config: string): string {
  return dirname(resolve(config));
}

/** What stdin holds, as much as a pattern file may have. */
async function readInput(): Promise<string> {
  const blocks: Buffer[] = [];
  let bytes = 0;
  for await (const block of process.stdin as AsyncIterable<Buffer>) {
    bytes += block.length;
    if (bytes > LARGEST_DOCUMENT) {
      throw new InputError(`stdin has more than ${LARGEST_DOCUMENT / 2 ** 20} MiB: that is no pattern`, {
        hint: patternForms,
      });
    }
    blocks.push(block);
  }
  return decodeUtf8(Buffer.concat(blocks), "stdin");
}
