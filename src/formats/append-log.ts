/**
 * Append-only JSONL files that make hours of work survive Ctrl-C, kill -9 and a full disk: a resumed run replays the file
 * and goes on. The first line holds a fingerprint of everything that decides the numbers; a run with another is refused.
 * The journals of `search` and `eval` are of this kind.
 */
import { type FileHandle, open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { z } from "zod";
import { InputError, ResumeMismatchError, RuntimeFailure } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { claimFile, releaseFile } from "../base/sole-writer.ts";
import { isThere } from "../base/user-files.ts";
import { decodeUtf8, readLines } from "./lines.ts";
import { parseJson } from "./validation.ts";

/** A kill loses nothing that was written; a power cut loses at most what came in this time. */
const SYNC_INTERVAL_MS = 2000;

/** A kind of log: what its lines hold. */
export interface LogKind<Fingerprint, Entry> {
  /** Such as "indexcache-search-journal". */
  kind: string;
  /** Readers refuse any other number. */
  format: number;
  fingerprint: z.ZodType<Fingerprint>;
  entry: z.ZodType<Entry>;
  /** What must be equal for a run to continue, by the names that messages use. */
  compared(fingerprint: Fingerprint): Map<string, string>;
  /** @throws InputError for a log that no run of this version can continue */
  requireContinuable?(fingerprint: Fingerprint, path: string): void;
}

export interface LogContent<Fingerprint, Entry> {
  fingerprint: Fingerprint;
  entries: Entry[];
  /** Bytes up to the end of the last whole line; what follows was torn by a kill. */
  wholeBytes: number;
}

/**
 * Reads a log. A last line without its newline is dropped: that is what a kill in mid-write leaves.
 * @returns undefined for a file that does not hold even a whole header
 * @throws InputError with the line number for any other bad line
 */
export async function readLog<Fingerprint, Entry>(
  path: string,
  { kind, format, fingerprint: schema, entry }: LogKind<Fingerprint, Entry>,
): Promise<LogContent<Fingerprint, Entry> | undefined> {
  const header = z.object({ kind: z.literal(kind), format: z.literal(format), fingerprint: schema });
  let fingerprint: Fingerprint | undefined;
  let wholeBytes = 0;
  let isChecked = false;
  const entries: Entry[] = [];
  for await (const line of readLines(path, `journal "${path}"`)) {
    if (!line.complete) break;
    const where = `Journal "${path}", line ${line.number}`;
    const { text, hasChecksum } = checkedText(decodeUtf8(line.bytes, where), where);
    if (fingerprint === undefined) {
      isChecked = hasChecksum;
      fingerprint = parseJson(text, header, where, "is this the journal of such a run, by this version?").fingerprint;
    } else {
      entries.push(parseJson(text, entry, where, "remove the line, or start anew with --fresh"));
      // What is wrong with a line of other origin is told first.
      if (isChecked && !hasChecksum) refuseDamaged(where, "it has no checksum, and the lines before it have one");
    }
    wholeBytes = line.end;
  }
  return fingerprint === undefined ? undefined : { fingerprint, entries, wholeBytes };
}

/** The last field of a line: the CRC-32 of the line as it would be without it, as 8 hex digits. */
const checksumField = /,"checksum":"(?<sum>[0-9a-f]{8})"\}$/;

function withChecksum(json: string): string {
  return `${json.slice(0, -1)},"checksum":"${checksumOf(json)}"}`;
}

function checksumOf(json: string): string {
  return crc32(json).toString(16).padStart(8, "0");
}

/**
 * A line without its checksum. Journals of earlier versions have none.
 * @throws InputError for a line that is not what was written: one changed digit of a loss would give another result
 */
function checkedText(line: string, where: string): { text: string; hasChecksum: boolean } {
  const found = checksumField.exec(line);
  if (found === null) return { text: line, hasChecksum: false };
  const text = `${line.slice(0, found.index)}}`;
  if (checksumOf(text) !== found.groups?.sum) refuseDamaged(where, "its checksum does not match");
  return { text, hasChecksum: true };
}

function refuseDamaged(where: string, why: string): never {
  throw new InputError(`${where} is not as it was written: ${why}`, {
    hint: "take the journal from a backup, remove the line, or start anew with --fresh",
  });
}

export type LogMode = "create" | "resume" | "fresh";

/** A log that is open for appending. */
export class AppendLog<Entry extends object> {
  readonly path: string;
  /** What an earlier run has written; empty unless resumed. */
  readonly entries: readonly Entry[];
  readonly #file: FileHandle;
  #syncedAt = performance.now();

  private constructor(path: string, file: FileHandle, entries: readonly Entry[]) {
    this.path = path;
    this.#file = file;
    this.entries = entries;
  }

  /**
   * `create` refuses a file that exists, `fresh` overwrites it, `resume` continues it.
   * @throws ResumeMismatchError that lists what differs between the file's run and this one
   */
  static async open<Fingerprint, Entry extends object>(
    path: string,
    kind: LogKind<Fingerprint, Entry>,
    fingerprint: Fingerprint,
    mode: LogMode,
  ): Promise<AppendLog<Entry>> {
    // Before anything is cut off: two processes would take what the other writes for their own.
    if (!(await claimFile(path))) {
      throw new InputError(`Another process is writing journal "${path}"`, {
        hint: "wait until it has ended, or stop it",
      });
    }
    const old = mode === "resume" ? await readLog(path, kind) : undefined;
    if (old !== undefined) {
      kind.requireContinuable?.(old.fingerprint, path);
      requireEqual(kind.compared(old.fingerprint), kind.compared(fingerprint), `Cannot resume from journal "${path}"`);
    }
    const file = await openFile(path, mode);
    const log = new AppendLog(path, file, old?.entries ?? []);
    try {
      if (mode === "resume") await file.truncate(old?.wholeBytes ?? 0);
      if (old === undefined) await log.#write({ kind: kind.kind, format: kind.format, fingerprint });
    } catch (error) {
      await file.close();
      throw error;
    }
    return log;
  }

  /** Adds an entry; it is in the file when this returns. */
  async append(entry: Entry): Promise<void> {
    await this.#write(entry);
    if (performance.now() - this.#syncedAt < SYNC_INTERVAL_MS) return;
    await this.#sync();
  }

  async close(): Promise<void> {
    try {
      await this.#sync();
    } finally {
      await this.#file.close();
      await releaseFile(this.path);
    }
  }

  async #write(line: object): Promise<void> {
    await this.#attempt(() => this.#file.appendFile(`${withChecksum(JSON.stringify(line))}\n`));
  }

  async #sync(): Promise<void> {
    await this.#attempt(() => this.#file.sync());
    this.#syncedAt = performance.now();
  }

  async #attempt(operation: () => Promise<void>): Promise<void> {
    try {
      await operation();
    } catch (error) {
      const code = systemErrorCode(error);
      // A device or pipe has nothing to sync.
      if (code === "EINVAL" || code === "ENOTSUP") return;
      if (code === undefined) throw error;
      throw new RuntimeFailure(`Cannot write journal "${this.path}": ${describeSystemError(code)}`, {
        hint: "what it holds so far is kept; make room and continue with --resume",
        cause: error,
      });
    }
  }
}

/**
 * Refuses to mix runs.
 * @throws ResumeMismatchError naming each field that differs, with both values
 */
export function requireEqual(old: Map<string, string>, current: Map<string, string>, refusal: string): void {
  const differing = [...new Set([...old.keys(), ...current.keys()])]
    .filter((field) => old.get(field) !== current.get(field))
    .map((field) => `${field} (journal: ${shown(old.get(field))}, now: ${shown(current.get(field))})`);
  if (differing.length === 0) return;
  throw new ResumeMismatchError(`${refusal}, it is of another run: ${differing.join("; ")}`, {
    hint: "run it as before, or start anew with --fresh",
  });
}

/** Fields of a fingerprint by the names that messages use: `weight_hash`, `settings.seed`. */
export function namedFields(fingerprint: object): [string, string][] {
  return Object.entries(fingerprint).flatMap(([name, value]): [string, string][] =>
    typeof value === "object" && value !== null
      ? Object.entries(value).map(([key, inner]) => [`${name}.${key}`, String(inner)])
      : [[name, String(value)]],
  );
}

/** Hashes by their beginning: nobody compares 64 digits. */
function shown(value = "none"): string {
  return value.replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1...");
}

/**
 * Says early what opening the log would say late, once texts are read and weights are hashed.
 * @throws InputError where `create` would meet a file, or `resume` none
 */
export async function requireFittingLog(path: string, mode: LogMode): Promise<void> {
  const there = await isThere(path);
  if (mode === "create" && there) throw existsAlready(path);
  if (mode === "resume" && !there) {
    throw new InputError(`There is no journal "${path}" to continue`, { hint: "leave out --resume" });
  }
}

function existsAlready(path: string): InputError {
  return new InputError(`Journal "${path}" exists already`, {
    hint: "continue it with --resume, or overwrite it with --fresh",
  });
}

async function openFile(path: string, mode: LogMode): Promise<FileHandle> {
  try {
    return await open(path, { create: "ax", resume: "a", fresh: "w" }[mode]);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    if (code === "EEXIST") throw existsAlready(path);
    throw new RuntimeFailure(`Cannot write journal "${path}": ${describeSystemError(code)}`, { cause: error });
  }
}
