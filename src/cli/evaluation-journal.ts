/** The journal of measured patterns, for the commands that measure many: opened by flags, replayed into measurements. */
import { UsageError } from "../base/errors.ts";
import { toolVersion } from "../base/version.ts";
import type { CalibrationSet } from "../calibration/calibration-set.ts";
import { Journal, type JournalEntry } from "../formats/journal.ts";
import type { PatternFile } from "../formats/pattern-file.ts";
import { parsePattern } from "../pattern/pattern.ts";
import { executionsRecord } from "../report/search-report.ts";
import type { Dtype, Measurement } from "../runtime/measurement.ts";

export interface JournalFlags {
  output?: string;
  resume?: boolean;
  fresh?: boolean;
}

export function requireSensibleJournal({ resume, fresh, output }: JournalFlags): void {
  if (resume === true && fresh === true) throw new UsageError("--resume and --fresh exclude each other");
  if ((resume === true || fresh === true) && output === undefined) {
    throw new UsageError(`--${resume === true ? "resume" : "fresh"} needs -o FILE: the journal is FILE.journal.jsonl`);
  }
}

/** The journal beside `-o FILE`; undefined without one. */
export async function openEvaluationJournal(
  { output, resume, fresh }: JournalFlags,
  identity: PatternFile["model"],
  set: CalibrationSet,
  dtype: Dtype,
): Promise<Journal | undefined> {
  if (output === undefined) return undefined;
  const fingerprint = {
    model_name: identity.name,
    model_config_hash: identity.config_hash,
    weight_hash: identity.weight_hash,
    calibration_hash: set.hash,
    // Device and threads are no part of it: they move a loss by less than the search takes for a tie, and a search that
    // ran out of device memory can go on elsewhere. Nor is the strategy: losses do not depend on who asks for them, and
    // what one strategy has measured another need not measure again.
    settings: { dtype },
    tool_version: toolVersion,
  };
  const mode = resume === true ? "resume" : fresh === true ? "fresh" : "create";
  return Journal.open(`${output}.journal.jsonl`, fingerprint, mode);
}

export function toEntry(measurement: Measurement): JournalEntry {
  const { pattern, loss, standardError, tokens, sequences, seconds, executions } = measurement;
  return {
    pattern,
    loss,
    standard_error: standardError,
    tokens,
    sequences,
    seconds,
    executions: executionsRecord(executions),
  };
}

export function toMeasurement(entry: JournalEntry): Measurement {
  const { pattern, loss, standard_error, tokens, sequences, seconds, executions } = entry;
  const { body, indexer, naive_body: naiveBody, naive_indexer: naiveIndexer } = executions;
  return {
    pattern: parsePattern(pattern),
    loss,
    standardError: standard_error,
    tokens,
    sequences,
    seconds,
    executions: { body, indexer, naiveBody, naiveIndexer },
  };
}

/** How results call a calibration set. */
export function calibrationRecord({ source, hash, windows, tokens }: CalibrationSet): PatternFile["calibration"] {
  return { source, hash, sequences: windows.length, tokens };
}
