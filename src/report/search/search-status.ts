/** Where a search stands, by its journal: what was measured, and the best pattern of each size so far. */

import { estimate } from "../../base/estimate.ts";
import { type JournalContent, knownSequences } from "../../formats/journal.ts";
import { fullLayers, type Pattern, parsePattern } from "../../pattern/pattern.ts";
import { counted, formatCount, formatDuration, formatLoss, formatLossChange } from "../quantities.ts";
import { formatFields, formatTable, left, right } from "../text-table.ts";
import { settingWords } from "./search-report.ts";

type SearchStatus = ReturnType<typeof statusRecord>;

export function statusRecord({ fingerprint, entries }: JournalContent) {
  const { strategy = "", objective = "nll", ...settings } = fingerprint.search;
  const known = knownSequences(entries);
  // A search begins with the model's own pattern on all its sequences; held-out ones come at the end.
  const [first] = entries;
  const start = first?.pattern;
  const searched = (first?.sequences ?? []).map(({ index }) => index);
  const weight = sourceWeights(String(settings.weights ?? ""), first?.sequences ?? []);
  const mean = (pattern: string): number | undefined => {
    const losses = searched.flatMap((index) => {
      const sequence = known.get(pattern)?.get(index);
      const loss = objective === "kl" ? sequence?.kl : sequence?.loss;
      return loss === undefined || sequence === undefined ? [] : [{ loss, tokens: sequence.tokens * weight(index) }];
    });
    return losses.length === searched.length && losses.length > 0 ? estimate(losses).mean : undefined;
  };
  const baseline = start === undefined ? 0 : (mean(start) ?? 0);
  const best = new Map<number, { pattern: Pattern; loss: number }>();
  for (const text of known.keys()) {
    const loss = mean(text);
    if (loss === undefined) continue;
    const pattern = parsePattern(text);
    const size = fullLayers(pattern).length;
    if (loss < (best.get(size)?.loss ?? Number.POSITIVE_INFINITY)) best.set(size, { pattern, loss });
  }
  const position = entries.findLast((entry) => entry.position !== undefined)?.position ?? null;
  const ended = position !== null && entries.at(-1)?.position === undefined;
  const searching = entries.filter((entry) => entry.position !== undefined);
  // The first one also opened sessions, chose kernels and took memory.
  const warm = searching.slice(1);
  // A race asks for the sequences of a pattern in parts.
  const asked = new Set(warm.map(({ pattern }) => pattern)).size;
  const each = warm.reduce((sum, entry) => sum + entry.seconds, 0) / asked;
  const left = position === null ? 0 : Math.max(0, position.total - position.done);
  return {
    model: fingerprint.model_name,
    strategy: String(strategy),
    objective: String(objective),
    settings,
    tool_version: fingerprint.tool_version,
    patterns: known.size,
    sequence_evaluations: [...known.values()].reduce((sum, sequences) => sum + sequences.size, 0),
    seconds: entries.reduce((sum, { seconds }) => sum + seconds, 0),
    /** Patterns measured and foreseen; null in a journal that does not say. */
    position,
    /** The search has ended, and what its report adds is being measured or was. */
    ended,
    /** By what each pattern took after the first evaluation; null before the second. */
    seconds_left: ended ? 0 : warm.length === 0 ? null : each * left,
    /** Of patterns that were measured on as many sequences as the model's own. */
    best: [...best]
      .sort(([left], [right]) => right - left)
      .map(([size, { pattern, loss }]) => ({
        full_layers: size,
        index_topk_pattern: pattern,
        loss,
        change: loss - baseline,
      })),
  };
}

/** `6 of 115 patterns, about 2 min 10 s left`. */
function describeStatusPosition({ position, ended, seconds_left: left }: SearchStatus): string | undefined {
  if (position === null) return undefined;
  const { done, total } = position;
  if (ended) return `${counted(done, "pattern")}; the search has ended, what its report adds came after`;
  if (done >= total) return `${counted(done, "pattern")}, no more are foreseen`;
  const known = left === null ? "" : `, about ${formatDuration(left)} left`;
  return `${formatCount(done)} of ${counted(total, "pattern")}${known}`;
}

export function formatStatus(status: SearchStatus): string {
  const fields = formatFields([
    ["Model", status.model],
    ["Search", [status.strategy, `objective ${status.objective}`, ...settingWords(status.settings)].join(", ")],
    [
      "Measured",
      `${counted(status.patterns, "pattern")}, ${counted(status.sequence_evaluations, "sequence")} in ${formatDuration(status.seconds)}`,
    ],
    ["Position", describeStatusPosition(status)],
  ]);
  if (status.best.length === 0) return fields;
  const table = formatTable(status.best, [
    right("Full", ({ full_layers: full }) => String(full)),
    right(status.objective === "kl" ? "KL" : "Loss", ({ loss }) => formatLoss(loss)),
    right("Change", ({ change }) => formatLossChange(change)),
    left("Best pattern so far", ({ index_topk_pattern: letters }) => letters),
  ]);
  return `${fields}\n\n${table}`;
}

/**
 * What a sequence's tokens are multiplied by in a mix of sources.
 * @param weights as the journal has them: `0.5x16 0.5x32`, weights and numbers of sequences one after the other
 */
function sourceWeights(
  weights: string,
  measured: readonly { index: number; tokens: number }[],
): (index: number) => number {
  const factors = new Map<number, number>();
  let first = 0;
  for (const part of weights.split(" ")) {
    const [share, count] = part.split("x").map(Number);
    if (share === undefined || count === undefined) break;
    const [from, end] = [first, first + count];
    const own = measured.filter(({ index }) => index >= from && index < end);
    const tokens = own.reduce((total, one) => total + one.tokens, 0);
    for (const { index } of own) factors.set(index, share / tokens);
    first = end;
  }
  return (index) => factors.get(index) ?? 1;
}
