/** Commands that results propose as the next one: they run as they are printed. */
import { stat } from "node:fs/promises";
import process from "node:process";
import { quoteWord } from "../../base/shell.ts";
import { isServed } from "../../engines/served-model.ts";
import { isPublished, readAnyPatternFile } from "../../formats/published-pattern.ts";
import type { Device, DeviceList, Dtype } from "../../runtime/measurement.ts";
import { demoModel } from "../arguments/options.ts";
import { splitRetain } from "../pattern/pattern-of-size.ts";
import { programWords } from "./interruption.ts";
import type { Terminal } from "./terminal.ts";

/** A command of this program, started as this one was. */
export function proposedCommand(words: readonly string[]): string {
  return [...programWords(process.argv), ...words].map(quoteWord).join(" ");
}

/** MODEL as a command takes it; the demo model goes without saying. */
export function modelWords(path: string | undefined): string[] {
  return path === undefined || path === demoModel ? [] : [path];
}

/**
 * The options that say where to compute, for a command that computes too.
 * @param alone the command takes one device: the first of several
 */
export function deviceWords(
  { device = "auto", devices, dtype = "float32" }: { device?: Device; devices?: DeviceList | undefined; dtype?: Dtype },
  { alone = false } = {},
): string[] {
  const several = devices === undefined || devices === "all" ? devices : devices.join(",");
  const first = devices === undefined ? device : devices === "all" ? "auto" : (devices[0] ?? "auto");
  return [
    ...(several !== undefined && !alone ? ["--devices", several] : first === "auto" ? [] : ["--device", first]),
    ...(dtype === "float32" ? [] : ["--dtype", dtype]),
  ];
}

interface PatternInUse {
  /** A pattern as `--pattern` takes it, or a checkpoint that has it as its own. */
  pattern: string;
  /** model_type of config.json */
  architecture: string;
  /** Where the model is; undefined where that is not known. */
  model: string | undefined;
  device?: Device;
}

/** Proposes how a pattern is put to use: by an engine, or by this tool where no engine serves such a model. */
export function proposeUse(terminal: Terminal, { pattern, architecture, model, device = "auto" }: PatternInUse): void {
  if (isServed(architecture)) {
    terminal.next("as an engine takes it", proposedCommand(["pattern", pattern, "--for", "vllm"]));
  } else if (model !== undefined) {
    const chosen = pattern === model ? [] : ["-p", pattern];
    const words = ["serve", ...modelWords(model), ...chosen, ...deviceWords({ device })];
    terminal.next("for a model that no engine serves", proposedCommand(words));
  }
}

/** `p-bench.json` beside `p.json` or `p-eval.json`. */
export function resultBeside(path: string, kind: "eval" | "bench"): string {
  return `${path.replace(/(-eval|-bench)?\.json$/, "")}-${kind}.json`;
}

/** The files of `search` among patterns as users give them (`p.json@1/2`), each once. */
export async function searchedFiles(patterns: readonly string[]): Promise<string[]> {
  const paths = [...new Set(patterns.map((pattern) => splitRetain(pattern).path))];
  const searched = await Promise.all(
    paths.map(async (path) => (await isThere(path)) && !isPublished(await readAnyPatternFile(path))),
  );
  return paths.filter((_, index) => searched[index]);
}

/** The result of a kind that earlier steps propose to write beside these files, where it was written. */
export async function resultsBeside(paths: readonly string[], kind: "eval" | "bench"): Promise<string[]> {
  const names = [...new Set(paths.map((path) => resultBeside(path, kind)))];
  const present = await Promise.all(names.map(isThere));
  return names.filter((_, index) => present[index]);
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}
