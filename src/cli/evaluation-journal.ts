/** The journal beside `-o FILE`, for the commands that measure many patterns. */
import { UsageError } from "../base/errors.ts";
import { toolVersion } from "../base/version.ts";
import type { CalibrationSet } from "../calibration/calibration-set.ts";
import { type LogMode, requireNoLog } from "../formats/append-log.ts";
import { type Journal, type JournalFingerprint, openJournal } from "../formats/journal.ts";
import { type PatternFile, WEIGHTS_NOT_READ } from "../formats/pattern-file.ts";

export interface JournalFlags {
  output?: string;
  resume?: boolean;
  fresh?: boolean;
  dryRun?: boolean;
}

/**
 * @throws UsageError for options that exclude each other
 * @throws InputError where a journal is there that is neither to be continued nor overwritten
 */
export async function requireSensibleJournal(flags: JournalFlags): Promise<void> {
  const { resume, fresh, output } = flags;
  if (resume === true && fresh === true) throw new UsageError("--resume and --fresh exclude each other");
  if ((resume === true || fresh === true) && output === undefined) {
    throw new UsageError(`--${resume === true ? "resume" : "fresh"} needs -o FILE: the journal is FILE.journal.jsonl`);
  }
  if (output !== undefined && flags.dryRun !== true) await requireNoLog(journalPath(output), logMode(flags));
}

function journalPath(output: string): string {
  return `${output}.journal.jsonl`;
}

export function logMode({ resume, fresh }: JournalFlags): LogMode {
  return resume === true ? "resume" : fresh === true ? "fresh" : "create";
}

/**
 * @param numbers what decides the numbers beside model and text: the dtype, or the engine that computes them
 * @param search what decides which patterns are measured; a run with other values is refused
 */
export function journalFingerprint(
  identity: PatternFile["model"],
  { hash }: CalibrationSet,
  numbers: JournalFingerprint["settings"],
  search: JournalFingerprint["search"],
): JournalFingerprint {
  return {
    model_name: identity.name,
    model_config_hash: identity.config_hash,
    weight_hash: identity.weight_hash ?? WEIGHTS_NOT_READ,
    calibration_hash: hash,
    // Device and threads are no part of it: they move a loss by less than the search takes for a tie, and a search that
    // ran out of device memory can go on elsewhere.
    settings: numbers,
    search,
    tool_version: toolVersion,
  };
}

/** The journal beside `-o FILE`; undefined without one. */
export async function openEvaluationJournal(
  flags: JournalFlags,
  fingerprint: JournalFingerprint,
): Promise<Journal | undefined> {
  if (flags.output === undefined) return undefined;
  return openJournal(journalPath(flags.output), fingerprint, logMode(flags));
}
