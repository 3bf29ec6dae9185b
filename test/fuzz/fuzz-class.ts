/** A class of inputs, and the judgement that every class is held to. */
import type fc from "fast-check";
import { ExitCode, IndexCacheError } from "../../src/base/errors.ts";

/**
 * Takes one mutated input as the program does. Throws what the program throws; where the input is accepted, says what is
 * wrong with that, or nothing.
 */
export type Attempt<Mutation> = (mutation: Mutation) => Promise<string | undefined>;

export interface FuzzClass<Mutation = unknown> {
  name: string;
  mutation: fc.Arbitrary<Mutation>;
  /** Makes the good input in an empty folder. */
  prepare(folder: string): Promise<Attempt<Mutation>>;
  /** Cases in `npm test`; several hundred over all classes. */
  runs: number;
}

/** A class whose mutations are known to itself only. */
export function fuzzClass<Mutation>(one: FuzzClass<Mutation>): FuzzClass {
  return one as FuzzClass;
}

const faultKinds = [
  "crash",
  "slow",
  "wrong code",
  "control characters",
  "long message",
  "silent acceptance",
  "memory",
] as const;

export interface Fault {
  kind: (typeof faultKinds)[number];
  words: string;
}

export interface Verdict {
  outcome: "accepted" | "refused";
  fault: Fault | undefined;
}

/** Seconds of the processor that one small input may take, however busy the machine; a template or regular expression without end has 20 of its own. */
const LONGEST_CASE = 30;
/** Bytes by which one small input may make the process grow. */
const MOST_GROWTH = 2 ** 31;

/** What a terminal would obey. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const controlCharacters = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** Thrown where a command has refused its input as it should. */
export class RefusedInWords extends Error {}

export async function judge<Mutation>(attempt: Attempt<Mutation>, mutation: Mutation): Promise<Verdict> {
  const begun = process.cpuUsage();
  const memory = process.memoryUsage.rss();
  const verdict = await judgeOutcome(attempt, mutation);
  if (verdict.fault !== undefined) return verdict;
  const { user, system } = process.cpuUsage(begun);
  const seconds = (user + system) / 1e6;
  if (seconds > LONGEST_CASE) return { ...verdict, fault: { kind: "slow", words: `took ${seconds.toFixed(1)} s` } };
  const growth = process.memoryUsage.rss() - memory;
  if (growth > MOST_GROWTH) return { ...verdict, fault: { kind: "memory", words: `grew by ${growth} bytes` } };
  return verdict;
}

async function judgeOutcome<Mutation>(attempt: Attempt<Mutation>, mutation: Mutation): Promise<Verdict> {
  try {
    const wrong = await attempt(mutation);
    const fault = wrong === undefined ? undefined : faultOf(wrong);
    return { outcome: "accepted", fault };
  } catch (error) {
    return { outcome: "refused", fault: error instanceof RefusedInWords ? undefined : faultOfError(error) };
  }
}

/** Words of an attempt may name another kind than the usual one: `wrong code: 7`. */
function faultOf(words: string): Fault {
  const named = faultKinds.find((kind) => words.startsWith(`${kind}: `));
  return named === undefined
    ? { kind: "silent acceptance", words }
    : { kind: named, words: words.slice(named.length + 2) };
}

/** What is wrong with the way in which an input was refused. */
function faultOfError(error: unknown): Fault | undefined {
  if (!(error instanceof IndexCacheError)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { kind: "crash", words: text.slice(0, 1500) };
  }
  return faultOfMessage(`${error.message}\n${error.hint ?? ""}`, error.exitCode);
}

export function faultOfMessage(message: string, code: number): Fault | undefined {
  // Nothing here fills a disk or lacks a driver: a bad input is exit code 2.
  if (code !== ExitCode.badInput) return { kind: "wrong code", words: `exit ${code}: ${message.slice(0, 600)}` };
  if (controlCharacters.test(message))
    return { kind: "control characters", words: JSON.stringify(message.slice(0, 1000)) };
  if (message.length > 5000) return { kind: "long message", words: `${message.length}: ${message.slice(0, 300)}` };
  if (message.trim() === "") return { kind: "wrong code", words: "refused without a word" };
  return undefined;
}
