/**
 * The patterns that come with the package: `patterns/<owner>/<model>/<size>.json`, a pattern file of either kind each. A
 * model's own patterns come first; only where it has none, those of its family are offered, as borrowed.
 */

import { readdir } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { isThere } from "../../base/user-files.ts";
import { modelName } from "../../checkpoint/hub-cache.ts";
import {
  type AnyPatternFile,
  type EvidenceTier,
  evidenceTier,
  isPublished,
  readAnyPatternFile,
} from "../../formats/published-pattern.ts";
import { publishedPatterns } from "../arguments/options.ts";
import { splitRetain } from "./pattern-of-size.ts";

export interface ShelfEntry {
  /** `zai-org/GLM-5/half`: what `--pattern` takes. */
  name: string;
  /** `zai-org/GLM-5` */
  model: string;
  path: string;
  file: AnyPatternFile;
}

/** An entry for a model at hand, and what it is worth for that model. */
export interface KnownPattern extends ShelfEntry {
  tier: EvidenceTier;
}

/** What a tier says, for legends. */
export const evidenceWords: Readonly<Record<EvidenceTier, string>> = {
  measured: "searched by indexcache on the model itself, with losses in the file",
  vendor: "published by those who made the model; sources are in the file",
  borrowed: "found on another model: measure it on yours before it is served",
};

/** Every entry, in the order of their names. */
export async function readShelf(): Promise<ShelfEntry[]> {
  const names = await entryNames();
  return Promise.all(
    names.map(async (name) => {
      const path = entryPath(name);
      return { name, model: dirname(name), path, file: await readAnyPatternFile(path) };
    }),
  );
}

/**
 * The file of an entry by its name, `zai-org/GLM-5/half`; the owner may be left out, capitals do not matter, and
 * dashes do for slashes (`glm-5-half`). undefined where there is none.
 * @throws UsageError for the name of a model alone, or of one with a size that the shelf does not have
 */
async function shelfPath(name: string): Promise<string | undefined> {
  const wanted = plain(name);
  const names = await entryNames();
  const found = names.find((entry) => isCalled(entry, wanted));
  if (found !== undefined) return entryPath(found);
  const ofModel = names.filter((entry) => isCalled(dirname(entry), wanted));
  if (ofModel.length > 0) {
    throw new UsageError(`"${name}" is a model, and a pattern is wanted: ${ofModel.join(", ")}`);
  }
  const ofOtherSizes = names.filter((entry) => isCalled(dirname(entry), plain(dirname(name))));
  if (ofOtherSizes.length === 0) return undefined;
  throw new UsageError(
    `${quoted(name)} is neither a file nor a published pattern; published for this model: ${ofOtherSizes.join(", ")}`,
  );
}

/** Where a pattern is read from that a user has named: a file or folder comes before a published pattern of that name. */
export async function patternPath(named: string): Promise<string> {
  return (await isThere(named)) ? named : ((await shelfPath(named)) ?? named);
}

/** What a user has named: `p.json@1/2`, `zai-org/GLM-5/half`; and the size that was asked for. */
export async function readNamedPattern(
  text: string,
): Promise<{ path: string; retain: string | undefined; file: AnyPatternFile }> {
  const { path: named, retain } = splitRetain(text);
  const path = await patternPath(named);
  return { path, retain, file: await readAnyPatternFile(path) };
}

/** The entries of a model by its name alone: `zai-org/GLM-5`, `glm-5`. */
export async function patternsOfName(name: string): Promise<KnownPattern[]> {
  const wanted = plain(name);
  const entries = (await readShelf()).filter(({ model }) => isCalled(model, wanted));
  return entries.map((entry) => ({ ...entry, tier: evidenceTier(entry.file) }));
}

/** What the shelf has for a model at hand: its own entries; where there are none, those of models of its shape. */
export async function knownPatterns(model: {
  folder: string;
  architecture: string | undefined;
  layers: number;
}): Promise<KnownPattern[]> {
  const alike = (await readShelf()).filter(({ file }) => {
    const { architecture, layers } = shapeOf(file);
    return architecture === model.architecture && layers === model.layers;
  });
  const own = alike.filter((entry) => isOfModel(entry, model.folder));
  if (own.length > 0) return own.map((entry) => ({ ...entry, tier: evidenceTier(entry.file) }));
  // What weights were trained with is of these weights alone.
  const lent = alike.filter(({ file }) => isPublished(file) && file.published.trained !== true);
  return lent.map((entry) => ({ ...entry, tier: "borrowed" }));
}

/** Is the model in this folder the entry's, by its name? */
export function isOfModel({ model }: ShelfEntry, folder: string): boolean {
  return isCalled(model, plain(modelName(folder)));
}

/** What the file says of the model that its pattern is of. */
export function shapeOf(file: AnyPatternFile): { architecture: string; layers: number } {
  return isPublished(file) ? file.published : file.model;
}

/** Names of the entries, sorted. */
async function entryNames(): Promise<string[]> {
  const files = await readdir(publishedPatterns, { recursive: true });
  return files
    .filter((file) => file.endsWith(".json"))
    .map((file) => join(dirname(file), basename(file, ".json")).split(sep).join("/"))
    .sort();
}

function entryPath(name: string): string {
  return join(publishedPatterns, ...`${name}.json`.split("/"));
}

/** Is an entry or a model of the shelf called so, with its owner or without? */
function isCalled(name: string, wanted: string): boolean {
  const [, ...rest] = name.split("/");
  return plain(name) === wanted || plain(rest.join("/")) === wanted;
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll("/", "-");
}
