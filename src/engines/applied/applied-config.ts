/** config.json of a checkpoint with a pattern applied. */
import { z } from "zod";
import type { EngineShape } from "../../checkpoint/derived/engine-shape.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { indexFieldNames, sharingFields } from "../index-fields.ts";
import type { ServedModel } from "../served-model.ts";
import { patchConfig } from "./config-patch.ts";

export async function appliedConfig(model: ServedModel, pattern: Pattern): Promise<string> {
  return patchConfig(await configText(model), sharingFields(pattern));
}

/**
 * The config in the engines' shape. With every layer Full it says nothing of sharing: an engine that is started from it has
 * all its indexers, and an override decides alone.
 */
export function withShape(config: string, pattern: Pattern, shape: EngineShape | undefined): string {
  if (shape === undefined) return config;
  const isAllFull = !pattern.includes("S");
  return patchConfig(config, shape.fields, isAllFull ? [] : indexFieldNames, isAllFull ? ["use_index_cache"] : []);
}

/** The source's config with what the original's says about sharing; the original's own text where nothing else differs. */
export async function restoredConfig(model: ServedModel, original: ServedModel): Promise<string> {
  const [text, before] = await Promise.all([configText(model), configText(original)]);
  const fields = Object.fromEntries(Object.entries(original.fields).filter(([, value]) => value != null));
  const patched = patchConfig(text, fields, [], "use_index_cache" in fields ? [] : ["use_index_cache"]);
  const same = (left: string, right: string): boolean =>
    JSON.stringify(sorted(JSON.parse(left))) === JSON.stringify(sorted(JSON.parse(right)));
  return same(patched, before) ? before : patched;
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1)));
}

export async function readConfig(model: ServedModel): Promise<unknown> {
  return parseJson(await configText(model), z.unknown(), `"${model.path}"`);
}

async function configText({ path = "" }: ServedModel): Promise<string> {
  return readText(path, `"${path}"`);
}
