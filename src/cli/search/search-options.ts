/** The options of `search`, and what they mean together. */
import { UsageError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import { mixOptions } from "../arguments/calibration-mix.ts";
import { type Flags, group, option } from "../arguments/declared-option.ts";
import { journalOptions } from "../arguments/journal-options.ts";
import { lossPlaceOptions } from "../arguments/memory.ts";
import { modelOptions } from "../arguments/opening.ts";
import { outputOptions, wholeNumber } from "../arguments/options.ts";
import { serverHeading, serverOptions } from "../live/server-options.ts";
import { constraintOptions } from "./constraints.ts";
import { effortOption } from "./effort.ts";
import { latencyOptions } from "./predicted-latency.ts";
import { strategyOptions } from "./strategy-options.ts";

export const searchOptions = [
  ...modelOptions,
  ...group(
    "What is searched for:",
    option("-r, --retain <list>", "how many layers stay Full: 1/4, 12, 1/2,1/4,1/8, all, or by --latency 1.5x", "1/4"),
    option(
      "--holdout <share>",
      "keep this share or number of the sequences out of the search, and report losses on them",
    ),
  ),
  ...group(
    "Files and resuming:",
    option("-o, --output <file>", "write the pattern file here, exactly"),
    ...journalOptions(),
    option("--reuse <journals...>", "take losses from journals of other searches of this model on this text"),
    option("--dry-run", "say what there is to do and how long it takes, after timing one evaluation"),
    option("--status <file>", "say where the search of this -o FILE or journal stands, and nothing else"),
  ),
  ...group("How it searches:", effortOption),
  ...strategyOptions,
  ...constraintOptions,
  ...latencyOptions,
  ...mixOptions,
  ...lossPlaceOptions,
  ...group(
    serverHeading,
    ...serverOptions,
    option(
      "--repeats <n>",
      "with --server: rounds in which patterns are measured again that noise does not tell apart",
      wholeNumber,
      4,
    ),
  ),
  ...outputOptions,
] as const;

export type SearchFlags = Flags<typeof searchOptions>;

/**
 * Which sequences a search judges by, and which are kept out of it; of several sources the same share of each.
 * @param sources indices of each source's sequences
 * @param holdout a share of the sequences (`1/4`, `0.25`) or a number of them
 * @throws UsageError where nothing would be left to search by, of one of the sources
 */
export function splitSequences(
  sources: readonly (readonly number[])[],
  holdout: string | undefined,
  seed: number,
): { search: number[]; heldOut: number[] } {
  const all = sources.flat();
  if (holdout === undefined) return { search: all, heldOut: [] };
  const wanted = heldOutCount(holdout, all.length);
  const out = new Set(
    sources.flatMap((own) => {
      const count = sources.length === 1 ? wanted : Math.max(1, Math.round((wanted * own.length) / all.length));
      if (count < own.length) return Random.forPart(seed, "held-out sequences").sample([...own], count);
      throw new UsageError(`--holdout is "${holdout}": it leaves nothing of a source of ${own.length} sequences`);
    }),
  );
  return { search: all.filter((index) => !out.has(index)), heldOut: all.filter((index) => out.has(index)) };
}

function heldOutCount(text: string, count: number): number {
  const form = /^(?:(?<whole>\d+)|(?<decimal>0?\.\d+)|(?<over>\d+)\/(?<under>\d+))$/.exec(text)?.groups;
  if (form === undefined) {
    throw new UsageError(`--holdout is "${text}": it must be a share like 1/4 or 0.25, or a number of sequences`);
  }
  const { whole, decimal, over, under } = form;
  const share = decimal === undefined ? Number(over) / Number(under) : Number(decimal);
  const wanted = whole === undefined ? Math.max(1, Math.round(count * share)) : Number(whole);
  if (wanted >= 1 && wanted < count) return wanted;
  throw new UsageError(
    `--holdout is "${text}": of ${count} sequences at least one has to be held out, and at least one has to be left`,
  );
}
