/** `p.json@1/2`: the pattern of one retention in a file that holds several. */
import { sep } from "node:path";
import { InputError, UsageError } from "../../base/errors.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import { type AnyPatternFile, isPublished } from "../../formats/published-pattern.ts";
import { fullLayers, type Pattern, parsePattern } from "../../pattern/pattern.ts";
import { parseRetain } from "../../search/retain.ts";
import { publishedPatterns } from "../arguments/options.ts";

/** The path of a pattern file, and the retention after an @. */
export function splitRetain(text: string): { path: string; retain?: string } {
  const { path, retain } = /^(?<path>.+)@(?<retain>\d+(?:\/\d+)?|\d*\.\d+)$/.exec(text)?.groups ?? {};
  return path === undefined || retain === undefined ? { path: text } : { path, retain };
}

/**
 * The pattern of a file, or of one of its sizes: those that the search wanted, or passed on its way and measured whole.
 * @throws UsageError for a size of a published pattern, and where the file holds several and none is named: the last one
 *   that was found is nobody's choice
 * @throws InputError for a size that the file does not have
 */
export function patternOfSize(file: AnyPatternFile, retain: string | undefined, path: string): Pattern {
  if (retain === undefined) {
    requireOneSize(file, path);
    return parsePattern(file.index_topk_pattern, path);
  }
  if (isPublished(file)) throw new UsageError(`"${path}" holds one published pattern: leave out @${retain}`);
  return ofSize(file, parseRetain(retain, file.model.layers), path);
}

function requireOneSize(file: AnyPatternFile, path: string): void {
  // The name of a file on the shelf says its size: indexcache/demo/quarter.
  if (isPublished(file) || (file.patterns?.length ?? 0) < 2 || path.startsWith(publishedPatterns + sep)) return;
  const sizes = (file.patterns ?? []).map(({ full_layers: full }) => full);
  throw new UsageError(`Pattern file "${path}" holds patterns of several sizes: ${sizes.join(", ")} Full layers`, {
    hint: `say which one: ${sizes.map((size) => `${path}@${size}`).join(" or ")}, or a share of the layers as in @1/2`,
  });
}

function ofSize(file: PatternFile, full: number, path: string): Pattern {
  const way = [...file.trajectory, ...(file.search.frontier ?? [])].filter(({ sequences }) => sequences === undefined);
  const all = [...(file.patterns ?? []), ...way, file].map(({ index_topk_pattern: letters }) => letters);
  const sizeOf = (letters: string): number => fullLayers(parsePattern(letters)).length;
  const found = all.find((letters) => sizeOf(letters) === full);
  if (found !== undefined) return parsePattern(found, path);
  const sizes = [...new Set(all.map(sizeOf))].sort((left, right) => right - left);
  throw new InputError(`Pattern file "${path}" has no pattern with ${full} Full layers; it has ${sizes.join(", ")}`);
}
