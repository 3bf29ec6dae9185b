/**
 * Tries a device in a process of its own: a native library that does not fit may crash, hang, or write to stderr what
 * nobody can turn off, and here that becomes one line.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { ComputeDevice } from "../measurement.ts";
import { keptWords, lastWords, loggedError, plainWords } from "../process/native-words.ts";

/** Parent to child. */
export interface TrialRequest {
  device: ComputeDevice;
  threads: number;
  /** How long to measure the device's speed; 0 for not at all. */
  seconds: number;
}

/** Child to parent. */
export type TrialReply =
  | { kind: "ran"; difference: number | undefined; flops?: number }
  | { kind: "failed"; message: string };

export type Trial = { works: true; difference: number | undefined; flops?: number } | { works: false; reason: string };

export interface TrialLimits {
  /** The child's program; another one in tests. */
  program?: string;
  timeoutMs?: number;
}

/** Creating a CUDA context on a machine of eight GPUs takes seconds; anything near this hangs. */
const defaultTimeoutMs = 60_000;
/** Products in TF32 or half precision differ by less; a wrong kernel by far more. */
const tolerance = 0.02;
export async function tryDevice(request: TrialRequest, limits: TrialLimits = {}): Promise<Trial> {
  const program = limits.program ?? fileURLToPath(new URL("./trial-process.js", import.meta.url));
  const child = fork(program, [], { serialization: "advanced", stdio: ["ignore", "ignore", "pipe", "ipc"] });
  let words = "";
  child.stderr?.on("data", (block: Buffer) => {
    words = (words + block.toString()).slice(-keptWords);
  });
  try {
    const outcome = await ask(child, request, limits.timeoutMs ?? defaultTimeoutMs);
    if (typeof outcome === "string") return { works: false, reason: joined(outcome, lastWords(words)) };
    if (outcome.kind === "failed") {
      return { works: false, reason: loggedError(words) ?? plainWords(outcome.message) };
    }
    const { difference, flops } = outcome;
    if (difference !== undefined && !(difference < tolerance)) {
      return { works: false, reason: `wrong results: they differ from the CPU's by ${difference.toPrecision(2)}` };
    }
    return { works: true, difference, ...(flops === undefined ? {} : { flops }) };
  } finally {
    child.removeAllListeners();
    child.kill("SIGKILL");
  }
}

/** The child's reply, or how it ended without one. */
function ask(child: ChildProcess, request: TrialRequest, timeoutMs: number): Promise<TrialReply | string> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(`no answer within ${timeoutMs / 1000} s`), timeoutMs);
    const settle = (outcome: TrialReply | string): void => {
      clearTimeout(timer);
      resolve(outcome);
    };
    let reply: TrialReply | undefined;
    child.on("message", (message) => {
      reply = message as TrialReply;
      // Its stderr may still be on the way; it is whole when the streams are closed, and the child has nothing to add.
      child.kill("SIGKILL");
    });
    child.on("error", (error) => settle(`the trial could not be started: ${error.message}`));
    child.on("close", (code, signal) => {
      settle(reply ?? `the native library crashed (${signal ?? `exit code ${code}`})`);
    });
    // "close" reports a child that dies at once.
    child.send(request, () => undefined);
  });
}

function joined(first: string, second: string | undefined): string {
  return second === undefined ? first : `${first}: ${second}`;
}
