/** Items are not judged with patterns that were searched, or indexers that were trained, on text that they are made of. */

import { InputError } from "../../base/errors.ts";
import type { NgramSketch } from "../../base/ngram-sketch.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import type { Suite } from "../../eval/item.ts";
import { findOverlap } from "../../eval/overlap.ts";
import type { PromptAssembly } from "../../eval/prompt-assembly.ts";
import { readDistilledManifest, trainingTexts } from "../../formats/distilled-manifest.ts";
import { isPublished } from "../../formats/published-pattern.ts";
import { looksLikePattern } from "../../pattern/schedule.ts";
import { readNamedPattern } from "../pattern/shelf.ts";

/** Text that an arm was made with. */
interface KnownText {
  source: string;
  hash: string;
  ngrams?: NgramSketch | undefined;
  /** What it was to the arm. */
  role: string;
  /** Why its items do not count, and what to do. */
  hint: string;
}

/**
 * @param folder of the model
 * @returns a note for the result where items overlap and `allowed` is true
 * @throws InputError for items that a pattern's calibration set, or the text of a distillation, has in common with the suite
 */
export async function overlapNotes(
  folder: string,
  patterns: readonly string[],
  suite: Suite,
  assembly: PromptAssembly,
  allowed: boolean,
  signal: AbortSignal,
): Promise<string[]> {
  const notes: string[] = [];
  const compared = new Set<string>();
  for (const { source, hash, ngrams, role, hint } of [
    ...(await textsOfTraining(folder)),
    ...(await textsOfSearches(patterns)),
  ]) {
    if (ngrams === undefined || compared.has(hash)) continue;
    compared.add(hash);
    const { items, overlapping } = await findOverlap(suite, (item) => assembly.ahead(item), ngrams, signal);
    const [first] = overlapping;
    if (first === undefined) continue;
    const words = `${overlapping.length} of ${counted(items, "item")} ${overlapping.length === 1 ? "has" : "have"} text in common with ${quoted(source)}, ${role}; the first is item ${quoted(first.id)} of ${first.task}`;
    if (!allowed) throw new InputError(words, { hint });
    notes.push(`${words} (--allow-overlap)`);
  }
  return notes;
}

async function textsOfTraining(folder: string): Promise<KnownText[]> {
  return trainingTexts(await readDistilledManifest(folder)).map((text) => ({
    ...text,
    role: "which the model's indexers were trained on",
    hint: "indexers are not judged by what they were trained on: evaluate on other items, distill on other text, or give --allow-overlap",
  }));
}

async function textsOfSearches(patterns: readonly string[]): Promise<KnownText[]> {
  const texts: KnownText[] = [];
  for (const pattern of patterns) {
    if (looksLikePattern(pattern)) continue;
    const { file } = await readNamedPattern(pattern);
    if (isPublished(file)) continue;
    texts.push({
      ...file.calibration,
      role: `the calibration set of ${quoted(pattern)}`,
      hint: "a pattern is not judged by what it was chosen on: evaluate on other items, search on other text, or give --allow-overlap",
    });
  }
  return texts;
}
