/**
 * Runs the command: the built program, in this process where a process of its own proves nothing more (starting one costs
 * half a second of CPU time, and the suite runs hundreds of commands), and as users do where it does.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { agentVariables } from "../../src/cli/console/agent.ts";

// An agent that runs the tests is not what they are about.
for (const name of agentVariables) delete process.env[name];

/** The environment for a terminal: where continuous integration runs it, ink draws but once, whatever the variable's value. */
export function plainEnvironment(): Record<string, string> {
  const { CI: _, CONTINUOUS_INTEGRATION: __, ...own } = process.env;
  return Object.fromEntries(
    Object.entries(own).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}

const root = join(import.meta.dirname, "..", "..");
export const program = join(root, "bin", "indexcache.js");

/** The trained model of the package: 12 layers, index_topk 128. */
export const demoModel = join(root, "models", "demo");

/** A random model of 5 layers, index_topk 7, vocabulary 83, without a tokenizer. */
export const tinyModel = join(root, "test", "fixtures", "glm-groups");

/** Another one, of 6 layers. */
export const otherModel = join(root, "test", "fixtures", "glm-freq");

export interface Outcome {
  /** Exit code, or the signal's name. */
  status: number | string;
  stdout: string;
  stderr: string;
}

type CommandLine = typeof import("../../src/cli/program.ts");

/** The working folder, the arguments and the streams are this process's own: one command after the other. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * Runs to the end, in this process, without anything to read from stdin. What a machine would spread over processes stays
 * in this one, unless the arguments say otherwise: starting them takes most of the time of a small model.
 */
export function indexcache(folder: string, args: readonly string[]): Promise<Outcome> {
  const outcome = turn.then(() => runHere(folder, args));
  turn = outcome.catch(() => undefined);
  return outcome;
}

async function runHere(folder: string, args: readonly string[]): Promise<Outcome> {
  const built = pathToFileURL(join(root, "dist", "cli", "program.js")).href;
  const { runCommandLine } = (await import(built)) as CommandLine;
  const text = { stdout: "", stderr: "" };
  const { NO_COLOR, INDEXCACHE_WORKERS } = process.env;
  const before = { folder: process.cwd(), argv: process.argv, env: { NO_COLOR, INDEXCACHE_WORKERS } };
  const restore = (["stdout", "stderr"] as const).map((name) => {
    const { write } = process[name];
    process[name].write = ((block: string | Uint8Array, ...rest: unknown[]) => {
      text[name] += typeof block === "string" ? block : Buffer.from(block).toString();
      const written = rest.at(-1);
      if (typeof written === "function") process.nextTick(written);
      return true;
    }) as typeof write;
    return () => {
      process[name].write = write;
    };
  });
  process.chdir(folder);
  process.env.NO_COLOR = "1";
  process.env.INDEXCACHE_WORKERS ??= "1";
  process.argv = [process.execPath, program, ...args];
  try {
    return { status: await runCommandLine(process.argv), ...text };
  } finally {
    for (const one of restore) one();
    process.chdir(before.folder);
    process.argv = before.argv;
    for (const [name, value] of Object.entries(before.env)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

/** Runs to the end in a process of its own, which reads `input` from stdin. */
export function indexcacheProcess(folder: string, args: readonly string[], input = ""): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [program, ...args],
      { cwd: folder, env: { ...process.env, NO_COLOR: "1" } },
      (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : (error.code ?? error.signal ?? "unknown"), stdout, stderr }),
    );
    child.stdin?.end(input);
  });
}

/** Runs a shell line in which `$indexcache` is the command. */
export function shell(folder: string, line: string): Promise<Outcome> {
  return new Promise((resolve) => {
    const env = { ...process.env, NO_COLOR: "1", indexcache: `${process.execPath} ${program}` };
    execFile("bash", ["-c", line], { cwd: folder, env }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : (error.code ?? error.signal ?? "unknown"), stdout, stderr }),
    );
  });
}

/** Runs until stderr says `words`, then sends the signal. */
export function interrupt(
  folder: string,
  args: readonly string[],
  words: string,
  signal: NodeJS.Signals,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child: ChildProcess = spawn(process.execPath, [program, ...args], { cwd: folder });
    const text = { stdout: "", stderr: "" };
    child.stdout?.on("data", (block: Buffer) => {
      text.stdout += block.toString();
    });
    child.stderr?.on("data", (block: Buffer) => {
      const before = text.stderr.includes(words);
      text.stderr += block.toString();
      if (!before && text.stderr.includes(words)) child.kill(signal);
    });
    child.on("close", (code, name) => resolve({ status: code ?? name ?? "unknown", ...text }));
  });
}

/** Runs for so long at most, then kills; says whether it had come to its end by itself. */
export function killAfter(folder: string, args: readonly string[], milliseconds: number): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { cwd: folder, stdio: "ignore" });
    const timer = setTimeout(() => child.kill("SIGKILL"), milliseconds);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve(code === 0);
    });
  });
}

/** Calibration windows of random ids below `vocabulary`; the same for the same arguments. */
export async function writeIds(path: string, windows: number, length: number, vocabulary = 83): Promise<void> {
  let state = 12345;
  const next = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % vocabulary;
  };
  const lines = Array.from({ length: windows }, () => JSON.stringify({ input_ids: Array.from({ length }, next) }));
  await writeFile(path, `${lines.join("\n")}\n`);
}
