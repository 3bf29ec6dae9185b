/**
 * Every error that the tool expects. A known error is one sentence for a person: what is wrong, where, and (as
 * `hint`) what to do; the command line prints it without a stack. Anything else that is thrown is a defect and is
 * never swallowed. What a message repeats of files is escaped and cut here at the latest (`quoted.ts`).
 */
import { messageLine } from "./quoted.ts";

/** Exit codes of the command line; documented in `--help`. */
export const ExitCode = {
  done: 0,
  gateFailed: 1,
  badInput: 2,
  runtimeFailure: 3,
  interrupted: 130,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

export interface ErrorDetails {
  /** What the user can do about it: usually the next command. */
  hint?: string | undefined;
  cause?: unknown;
}

/** Base of all known errors. `exitCode` is what the command line exits with. */
export abstract class IndexCacheError extends Error {
  abstract readonly code: `E_${string}`;
  abstract readonly exitCode: ExitCode;
  readonly hint: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(messageLine(message), details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.hint = details.hint === undefined ? undefined : messageLine(details.hint);
  }
}

/** A command line that cannot be carried out as written. */
export class UsageError extends IndexCacheError {
  readonly code = "E_USAGE";
  readonly exitCode = ExitCode.badInput;
}

/** A file that cannot be used: a checkpoint, pattern, data set or journal. */
export class InputError extends IndexCacheError {
  readonly code = "E_INPUT";
  readonly exitCode = ExitCode.badInput;
}

/** A run that cannot continue a journal because something that decides its numbers has changed. */
export class ResumeMismatchError extends IndexCacheError {
  readonly code = "E_RESUME_MISMATCH";
  readonly exitCode = ExitCode.badInput;
}

/** The work is done, and its result is not what a gate asked for. */
export class GateFailure extends IndexCacheError {
  readonly code = "E_GATE";
  readonly exitCode = ExitCode.gateFailed;
}

/** The machine or the runtime failed: disk full, a session that cannot be created, non-finite activations. */
export class RuntimeFailure extends IndexCacheError {
  readonly code = "E_RUNTIME";
  readonly exitCode = ExitCode.runtimeFailure;
}

/** The user asked to stop; what was done is saved. */
export class InterruptedError extends IndexCacheError {
  readonly code = "E_INTERRUPTED";
  readonly exitCode = ExitCode.interrupted;
}
