/**
 * The journal of a search: append-only JSONL beside the output, one line for each evaluated pattern. It is what makes
 * hours of work survive Ctrl-C, kill -9 and a full disk: a resumed search replays it and goes on.
 * Its first line holds a fingerprint of everything that decides the numbers; a run with another one is refused.
 */
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { InputError, ResumeMismatchError, RuntimeFailure } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { decodeUtf8, readLines } from "./lines.ts";
import { parseJson } from "./validation.ts";

const JOURNAL_KIND = "indexcache-search-journal";
const JOURNAL_FORMAT = 1;

/** A kill loses nothing that was written; a power cut loses at most the evaluations of this time. */
const SYNC_INTERVAL_MS = 2000;

const fingerprintSchema = z.object({
  model_name: z.string(),
  model_config_hash: z.string(),
  weight_hash: z.string(),
  calibration_hash: z.string(),
  /** Settings that decide the numbers (the dtype), not those that only decide how far the search goes. */
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  tool_version: z.string(),
});

const headerSchema = z.object({
  kind: z.literal(JOURNAL_KIND),
  format: z.literal(JOURNAL_FORMAT),
  fingerprint: fingerprintSchema,
});

const count = z.int().min(0);

const entrySchema = z.object({
  pattern: z.string().regex(/^F[FS]*$/, "expected letters F and S, the first one F"),
  loss: z.number(),
  standard_error: z.number(),
  tokens: count,
  sequences: z.array(z.object({ loss: z.number(), tokens: count })),
  seconds: z.number(),
  executions: z.object({ body: count, indexer: count, naive_body: count, naive_indexer: count }),
});

export type JournalFingerprint = z.infer<typeof fingerprintSchema>;
export type JournalEntry = z.infer<typeof entrySchema>;

export interface JournalContent {
  fingerprint: JournalFingerprint;
  entries: JournalEntry[];
  /** Bytes up to the end of the last whole line; what follows was torn by a kill. */
  wholeBytes: number;
}

/**
 * Reads a journal. A last line without its newline is dropped: that is what a kill in mid-write leaves.
 * @returns undefined for a file that does not hold even a whole header
 * @throws InputError with the line number for any other bad line
 */
export async function readJournal(path: string): Promise<JournalContent | undefined> {
  const noun = `journal "${path}"`;
  let fingerprint: JournalFingerprint | undefined;
  let wholeBytes = 0;
  const entries: JournalEntry[] = [];
  for await (const line of readLines(path, noun)) {
    if (!line.complete) break;
    const where = `Journal "${path}", line ${line.number}`;
    const text = decodeUtf8(line.bytes, where);
    if (fingerprint === undefined) {
      fingerprint = parseJson(
        text,
        headerSchema,
        where,
        "is this the journal of a search by this version?",
      ).fingerprint;
    } else {
      entries.push(parseJson(text, entrySchema, where, "remove the line, or start anew with --fresh"));
    }
    wholeBytes = line.end;
  }
  return fingerprint === undefined ? undefined : { fingerprint, entries, wholeBytes };
}

export type JournalMode = "create" | "resume" | "fresh";

/** A journal that is open for appending. */
export class Journal {
  readonly path: string;
  /** What an earlier run has measured; empty unless resumed. */
  readonly entries: readonly JournalEntry[];
  readonly #file: FileHandle;
  #syncedAt = performance.now();

  private constructor(path: string, file: FileHandle, entries: readonly JournalEntry[]) {
    this.path = path;
    this.#file = file;
    this.entries = entries;
  }

  /**
   * `create` refuses a file that exists, `fresh` overwrites it, `resume` goes on from it.
   * @throws ResumeMismatchError that lists what differs between the journal's run and this one
   */
  static async open(path: string, fingerprint: JournalFingerprint, mode: JournalMode): Promise<Journal> {
    const old = mode === "resume" ? await readJournal(path) : undefined;
    if (old !== undefined) requireSameFingerprint(path, old.fingerprint, fingerprint);
    const file = await openFile(path, mode);
    const journal = new Journal(path, file, old?.entries ?? []);
    try {
      if (mode === "resume") await file.truncate(old?.wholeBytes ?? 0);
      if (old === undefined) await journal.#write({ kind: JOURNAL_KIND, format: JOURNAL_FORMAT, fingerprint });
    } catch (error) {
      await file.close();
      throw error;
    }
    return journal;
  }

  /** Adds an evaluation; it is in the file when this returns. */
  async append(entry: JournalEntry): Promise<void> {
    await this.#write(entry);
    if (performance.now() - this.#syncedAt < SYNC_INTERVAL_MS) return;
    await this.#sync();
  }

  async close(): Promise<void> {
    try {
      await this.#sync();
    } finally {
      await this.#file.close();
    }
  }

  async #write(line: object): Promise<void> {
    await this.#attempt(() => this.#file.appendFile(`${JSON.stringify(line)}\n`));
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
        hint: "what it holds so far is kept; make room and go on with --resume",
        cause: error,
      });
    }
  }
}

function requireSameFingerprint(path: string, old: JournalFingerprint, current: JournalFingerprint): void {
  const before = flatten(old);
  const now = flatten(current);
  const differing = [...new Set([...before.keys(), ...now.keys()])]
    .filter((field) => before.get(field) !== now.get(field))
    .map((field) => `${field} (journal: ${before.get(field) ?? "none"}, now: ${now.get(field) ?? "none"})`);
  if (differing.length === 0) return;
  throw new ResumeMismatchError(`Cannot resume from journal "${path}", it is of another run: ${differing.join("; ")}`, {
    hint: "run it as before, or start anew with --fresh",
  });
}

/** The name is left out: a model folder may be renamed, its hashes tell. */
function flatten({ model_name: _, settings, ...hashes }: JournalFingerprint): Map<string, string> {
  return new Map([
    ...Object.entries(hashes),
    ...Object.entries(settings).map(([name, value]): [string, string] => [`settings.${name}`, String(value)]),
  ]);
}

async function openFile(path: string, mode: JournalMode): Promise<FileHandle> {
  try {
    return await open(path, { create: "ax", resume: "a", fresh: "w" }[mode]);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    if (code === "EEXIST") {
      throw new InputError(`Journal "${path}" exists already`, {
        hint: "go on from it with --resume, or overwrite it with --fresh",
      });
    }
    throw new RuntimeFailure(`Cannot write journal "${path}": ${describeSystemError(code)}`, { cause: error });
  }
}
