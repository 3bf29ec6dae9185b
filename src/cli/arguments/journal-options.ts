/** `--resume` and `--fresh`, and the journal beside `-o FILE` of the commands that measure many patterns. */
import { UsageError } from "../../base/errors.ts";
import { toolVersion } from "../../base/version.ts";
import type { CalibrationSet } from "../../calibration/calibration-set.ts";
import { type LogMode, requireFittingLog } from "../../formats/append-log.ts";
import { type Journal, type JournalFingerprint, openJournal } from "../../formats/journal.ts";
import { type PatternFile, WEIGHTS_NOT_READ } from "../../formats/pattern-schema.ts";
import { type Flags, option } from "./declared-option.ts";

/** @param left what an earlier run has left behind */
export function journalOptions(left = "journal") {
  return [
    option("--resume", `continue from the ${left} of an earlier run`),
    option("--fresh", `begin anew where there is a ${left} already`),
  ] as const;
}

export type JournalFlags = Flags<ReturnType<typeof journalOptions>>;

/** @throws UsageError where both are given */
export function logMode({ resume, fresh }: JournalFlags): LogMode {
  if (resume === true && fresh === true) throw new UsageError("--resume and --fresh exclude each other");
  return resume === true ? "resume" : fresh === true ? "fresh" : "create";
}

/**
 * @param path of the log; undefined where nothing is written
 * @param needs what says where it is written
 * @throws UsageError for options that exclude each other, or that have no log
 */
export function requireLog(flags: JournalFlags, path: string | undefined, needs: string): LogMode {
  const mode = logMode(flags);
  if (path === undefined && mode !== "create") throw new UsageError(`--${mode} needs ${needs}`);
  return mode;
}

interface EvaluationJournalFlags extends JournalFlags {
  output?: string;
  dryRun?: boolean;
}

/**
 * @throws UsageError for options that do not go together
 * @throws InputError where a journal is there that is neither to be continued nor overwritten, or none to be continued
 */
export async function requireSensibleJournal(flags: EvaluationJournalFlags): Promise<void> {
  const path = flags.output === undefined ? undefined : journalPath(flags.output);
  const mode = requireLog(flags, path, "-o FILE: the journal is FILE.journal.jsonl");
  if (path !== undefined && flags.dryRun !== true) await requireFittingLog(path, mode);
}

function journalPath(output: string): string {
  return `${output}.journal.jsonl`;
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
  { output, ...flags }: EvaluationJournalFlags,
  fingerprint: JournalFingerprint,
): Promise<Journal | undefined> {
  return output === undefined ? undefined : openJournal(journalPath(output), fingerprint, logMode(flags));
}
