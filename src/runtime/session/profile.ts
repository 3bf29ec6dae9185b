/** What ONNX Runtime's own profile says: which provider ran which operator, for how long, and what was copied between. */
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";
import { parseJson } from "../../formats/validation.ts";

/** All runs of one operator on one provider. */
export interface OperatorProfile {
  provider: string;
  operator: string;
  runs: number;
  /** Host time. On a GPU kernels go on after their node has ended, unless launches are made to block. */
  seconds: number;
  /** Bytes of the outputs, where the runtime states them. */
  bytes: number;
}

/** Copies that ONNX Runtime put between nodes of different providers. */
export interface Copies {
  toDevice: OperatorProfile;
  toHost: OperatorProfile;
}

export interface SessionProfile {
  /** Runs of the graph, and the time from their beginning to their end. */
  runs: number;
  seconds: number;
  /** The most time first; copies are among them, control flow is not. */
  operators: OperatorProfile[];
  /** `If`, `Loop` and `Scan`: their time is that of the nodes inside, which are operators of their own, and a little more. */
  controlFlow: OperatorProfile[];
  copies: Copies;
}

const eventSchema = z.object({
  cat: z.string(),
  name: z.string(),
  ts: z.number(),
  dur: z.number().optional(),
  args: z.object({ op_name: z.string(), provider: z.string(), output_size: z.string() }).partial().optional(),
});

type ProfileEvent = z.infer<typeof eventSchema>;

const controlFlowOperators = new Set(["If", "Loop", "Scan"]);
const copyOperators = { toDevice: "MemcpyFromHost", toHost: "MemcpyToHost" } as const;

/**
 * Reads a profile that a session wrote, one event a line.
 * @param warmRuns the first runs of the session, which are left out
 */
export async function readProfile(path: string, warmRuns = 0): Promise<SessionProfile> {
  const runs: { start: number; end: number }[] = [];
  for await (const { cat, name, ts, dur = 0 } of events(path, "model_run")) {
    if (cat === "Session" && name === "model_run") runs.push({ start: ts, end: ts + dur });
  }
  runs.sort((a, b) => a.start - b.start);
  const measured = runs.slice(warmRuns);
  // What happens before the first run has no nodes, so without warm-up every node counts.
  const begin = warmRuns === 0 ? 0 : (runs[warmRuns - 1]?.end ?? Number.POSITIVE_INFINITY);
  const found = new OperatorTable();
  for await (const { cat, name, ts, dur = 0, args = {} } of events(path, "_kernel_time")) {
    if (cat !== "Node" || !name.endsWith("_kernel_time") || ts < begin) continue;
    const { op_name: operator = "", provider = "", output_size: bytes = "0" } = args;
    found.add({ provider, operator, runs: 1, seconds: dur / 1e6, bytes: Number(bytes) });
  }
  return {
    runs: measured.length,
    seconds: measured.reduce((total, { start, end }) => total + (end - start), 0) / 1e6,
    ...found.split(),
  };
}

/** The sessions' profiles as one. */
export function joinProfiles(profiles: readonly SessionProfile[]): SessionProfile {
  const found = new OperatorTable();
  let runs = 0;
  let seconds = 0;
  for (const profile of profiles) {
    runs += profile.runs;
    seconds += profile.seconds;
    for (const entry of [...profile.operators, ...profile.controlFlow]) found.add(entry);
  }
  return { runs, seconds, ...found.split() };
}

/** Less than this in a run of the graph, all outputs together, is arithmetic on shapes and flags. */
export const shapeBytes = 64 * 1024;

/**
 * Operators that ran on the CPU although the session has a device, by what they made: tensors of some size are computed
 * in the wrong place, arithmetic on shapes is where it belongs. Control flow is neither.
 */
export function cpuOperators({ operators, runs }: SessionProfile): {
  fallbacks: OperatorProfile[];
  shapeArithmetic: OperatorProfile[];
} {
  const onCpu = operators.filter(({ provider }) => provider === "CPUExecutionProvider");
  const isSmall = ({ bytes }: OperatorProfile) => bytes < shapeBytes * Math.max(1, runs);
  return { fallbacks: onCpu.filter((entry) => !isSmall(entry)), shapeArithmetic: onCpu.filter(isSmall) };
}

/** Sums by operator and provider. */
class OperatorTable {
  readonly #entries = new Map<string, OperatorProfile>();

  add(entry: OperatorProfile): void {
    const key = `${entry.provider} ${entry.operator}`;
    const found = this.#entries.get(key);
    if (found === undefined) {
      this.#entries.set(key, { ...entry });
      return;
    }
    found.runs += entry.runs;
    found.seconds += entry.seconds;
    found.bytes += entry.bytes;
  }

  split(): Pick<SessionProfile, "operators" | "controlFlow" | "copies"> {
    const sorted = [...this.#entries.values()].sort((a, b) => b.seconds - a.seconds);
    const isControlFlow = ({ operator }: OperatorProfile) => controlFlowOperators.has(operator);
    const copies = (operator: string): OperatorProfile =>
      sorted.find((entry) => entry.operator === operator) ?? { provider: "", operator, runs: 0, seconds: 0, bytes: 0 };
    return {
      operators: sorted.filter((entry) => !isControlFlow(entry)),
      controlFlow: sorted.filter(isControlFlow),
      copies: { toDevice: copies(copyOperators.toDevice), toHost: copies(copyOperators.toHost) },
    };
  }
}

const cutHint = "ONNX Runtime ends a profile early where the disk is full: set TMPDIR to a folder with room";

/**
 * Events of the lines that contain `word`. An event takes a kilobyte and there may be a million of them, which is more
 * than a string can hold: the file is never in memory as a whole.
 */
async function* events(path: string, word: string): AsyncGenerator<ProfileEvent> {
  for await (const line of createInterface({ input: createReadStream(path, "utf8") })) {
    if (line.includes(word)) yield parseJson(line.replace(/,\s*$/, ""), eventSchema, `"${path}"`, cutHint);
  }
}
