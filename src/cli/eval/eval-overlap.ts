/** Patterns that were searched on text that the items are made of are not judged by these items. */
import { InputError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import type { Suite } from "../../eval/item.ts";
import { findOverlap } from "../../eval/overlap.ts";
import type { PromptAssembly } from "../../eval/prompt-assembly.ts";
import { isPublished, readAnyPatternFile } from "../../formats/published-pattern.ts";
import { looksLikePattern } from "../../pattern/schedule.ts";
import { splitRetain } from "../pattern/pattern-of-size.ts";

/**
 * @returns a note for the result where items overlap and `allowed` is true
 * @throws InputError for items that a pattern's calibration set has in common with the suite
 */
export async function overlapNotes(
  patterns: readonly string[],
  suite: Suite,
  assembly: PromptAssembly,
  allowed: boolean,
  signal: AbortSignal,
): Promise<string[]> {
  const notes: string[] = [];
  const compared = new Set<string>();
  for (const pattern of patterns) {
    if (looksLikePattern(pattern)) continue;
    const file = await readAnyPatternFile(splitRetain(pattern).path);
    const calibration = isPublished(file) ? undefined : file.calibration;
    if (calibration?.ngrams === undefined || compared.has(calibration.hash)) continue;
    compared.add(calibration.hash);
    const { items, overlapping } = await findOverlap(
      suite,
      (item) => assembly.prompt(item).ids,
      calibration.ngrams,
      signal,
    );
    const [first] = overlapping;
    if (first === undefined) continue;
    const words = `${overlapping.length} of ${items} items have text in common with ${quoted(calibration.source)}, the calibration set of ${quoted(pattern)}; the first is item ${quoted(first.id)} of ${first.task}`;
    if (!allowed) {
      throw new InputError(words, {
        hint: "a pattern is not judged by what it was chosen on: evaluate on other items, search on other text, or give --allow-overlap",
      });
    }
    notes.push(`${words} (--allow-overlap)`);
  }
  return notes;
}
