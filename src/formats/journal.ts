/**
 * The journal of a search: a line for each time that a pattern was measured on some sequences. Losses do not depend on who
 * asks for them: a search by another strategy may take them too, as long as `sameNumbers` says that they are the same
 * model's on the same text.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import {
  AppendLog,
  type LogContent,
  type LogKind,
  type LogMode,
  namedFields,
  readLog,
  requireEqual,
} from "./append-log.ts";
import { count, layerExecutions, letters, positive, settings } from "./fields.ts";
import { currentStrategyName, isRemovedStrategy } from "./strategy-names.ts";

const fingerprintSchema = z.object({
  model_name: z.string(),
  model_config_hash: z.string(),
  weight_hash: z.string(),
  calibration_hash: z.string(),
  /** What decides the numbers (the dtype). */
  settings,
  /** What decides which patterns are tried. The wanted retention does not: a search to 1/2 can go on to 1/4. */
  search: settings,
  tool_version: z.string(),
});

const entrySchema = z.object({
  pattern: letters,
  sequences: z.array(
    z.object({
      /** Of the calibration set's sequences, from 0. */
      index: count,
      /** Mean NLL, nats per token. */
      loss: z.number(),
      tokens: count,
      /** Mean KL from the model's own pattern, where it was measured. */
      kl: z.number().optional(),
    }),
  ),
  /** From 1: a further measurement of what an earlier line has, by an evaluator that repeats up to noise only. */
  repeat: positive.optional(),
  seconds: z.number(),
  /** `loads` stands with the first of the evaluations that were made together; `rows.prefix` may be below 0. */
  executions: layerExecutions,
  /** Of a search: its patterns with this one, and those that were foreseen then. */
  position: z.object({ done: count, total: count }).optional(),
});

export type JournalFingerprint = z.infer<typeof fingerprintSchema>;
export type JournalEntry = z.infer<typeof entrySchema>;
export type Journal = AppendLog<JournalEntry>;
export type JournalContent = LogContent<JournalFingerprint, JournalEntry>;

const searchJournal: LogKind<JournalFingerprint, JournalEntry> = {
  kind: "indexcache-search-journal",
  format: 2,
  fingerprint: fingerprintSchema,
  entry: entrySchema,
  compared: (fingerprint) =>
    new Map([...numbers(fingerprint), ...namedFields({ search: withCurrentName(fingerprint.search) })]),
  requireContinuable({ search: { strategy, swaps } }, path) {
    if (swaps === undefined && !isRemovedStrategy(String(strategy))) return;
    throw new InputError(
      `Journal "${path}" is of --strategy ${strategy}${swaps === undefined ? "" : " --swaps"}, which this version no longer has: no measurement favoured it over refine`,
      { hint: `search into another -o FILE; --reuse "${path}" takes over the losses that it holds` },
    );
  },
};

function withCurrentName(search: JournalFingerprint["search"]): JournalFingerprint["search"] {
  const { strategy } = search;
  return typeof strategy === "string" ? { ...search, strategy: currentStrategyName(strategy) } : search;
}

export function readJournal(path: string): Promise<JournalContent | undefined> {
  return readLog(path, searchJournal);
}

export function openJournal(path: string, fingerprint: JournalFingerprint, mode: LogMode): Promise<Journal> {
  return AppendLog.open(path, searchJournal, fingerprint, mode);
}

/**
 * Refuses losses that another model, text, dtype or version of the tool has given.
 * @throws ResumeMismatchError naming each field that differs
 */
export function requireSameNumbers(path: string, old: JournalFingerprint, current: JournalFingerprint): void {
  requireEqual(numbers(old), numbers(current), `Cannot take losses from journal "${path}"`);
}

/** Refuses to join journals of different runs. */
export function requireSameRun(path: string, old: JournalFingerprint, current: JournalFingerprint): void {
  requireEqual(searchJournal.compared(old), searchJournal.compared(current), `Cannot merge journal "${path}"`);
}

/** Losses further apart than this, in nats on one sequence, are not two devices' or two thread counts'. */
const sameLoss: Record<string, number> = { float16: 0.05, server: 0.2 };
const sameLossOfOthers = 1e-3;

/**
 * Refuses journals that say different things of one pattern on one sequence: whichever came first would decide.
 * @throws InputError naming the pattern, the sequence, and both values with the journals that have them
 */
export function requireAgreement(
  journals: readonly { path: string; entries: readonly JournalEntry[] }[],
  dtype: string,
): void {
  const seen = new Map<string, { path: string; value: number }>();
  const most = sameLoss[dtype] ?? sameLossOfOthers;
  for (const { path, entries } of journals) {
    for (const { pattern, sequences, repeat } of entries) {
      if (repeat !== undefined) continue;
      for (const { index, loss, kl, tokens } of sequences) {
        for (const [what, value, tolerance] of [
          ["tokens", tokens, 0],
          ["the loss", loss, most],
          ["the KL", kl, most],
        ] as const) {
          if (value === undefined) continue;
          const key = `${what} ${pattern} ${index}`;
          const first = seen.get(key);
          if (first === undefined) seen.set(key, { path, value });
          else if (Math.abs(first.value - value) > tolerance) {
            throw new InputError(
              `Journals contradict each other on sequence ${index} with pattern ${pattern}: ${what} is ${first.value} in "${first.path}" and ${value} in "${path}"`,
              { hint: "one of them is not of this model and text, or was changed: leave it out" },
            );
          }
        }
      }
    }
  }
}

/** Losses by pattern and sequence. */
export type KnownSequences = Map<string, Map<number, JournalEntry["sequences"][number]>>;

/** What the entries say of each pattern. Of two lines on a sequence the first gives the loss, the later one may add KL. */
export function knownSequences(entries: Iterable<JournalEntry>): KnownSequences {
  const known: KnownSequences = new Map();
  for (const entry of entries) addEntry(known, entry);
  return known;
}

/** What one more line says: a repeated measurement moves the mean. */
export function addEntry(known: KnownSequences, { pattern, sequences, repeat }: JournalEntry): void {
  const of = known.get(pattern) ?? new Map<number, JournalEntry["sequences"][number]>();
  for (const sequence of sequences) {
    const before = of.get(sequence.index);
    if (before === undefined || repeat === undefined) of.set(sequence.index, { ...sequence, ...before });
    else of.set(sequence.index, meanOf(before, sequence, repeat));
  }
  known.set(pattern, of);
}

function meanOf<T extends { loss: number; kl?: number | undefined }>(before: T, now: T, repeat: number): T {
  const toward = (mean: number, value: number): number => mean + (value - mean) / (repeat + 1);
  const loss = toward(before.loss, now.loss);
  return before.kl === undefined || now.kl === undefined
    ? { ...before, loss }
    : { ...before, loss, kl: toward(before.kl, now.kl) };
}

/** The name is left out: a model folder may be renamed, its hashes tell. */
function numbers({ model_name: _, search: __, ...fields }: JournalFingerprint): Map<string, string> {
  return new Map(namedFields(fields));
}
