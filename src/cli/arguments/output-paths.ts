/** What may stand where a command writes: nothing that it reads, and no "-". */
import { realpath, stat } from "node:fs/promises";
import type { Command } from "commander";
import { UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";

/** Options that name a file to write, whatever the command. */
const outputs = ["output", "junit", "samplesFile", "pareto"] as const;

/** Those that name a folder, or a file that nothing is read from. */
const folders = ["work", "cache", "writeConfig", "profile"] as const;

/** Of `bench` alone: `search` reads what `bench --latency` writes. */
const outputOf: Readonly<Record<string, readonly string[]>> = { bench: ["latency"] };

/** @throws UsageError where an output is "-", which elsewhere means stdout: results go there by themselves */
export function requireNamedOutputs(command: Command): void {
  const flags: Record<string, unknown> = command.opts();
  const written = new Set<string>([...outputs, ...folders, ...(outputOf[command.name()] ?? [])]);
  const dashed = command.options.find((one) => written.has(one.attributeName()) && flags[one.attributeName()] === "-");
  const inKit = command.name() === "kit" && command.processedArgs[0] === "-";
  if (dashed === undefined && !inKit) return;
  const isFolder = inKit || dashed?.flags.includes("<folder>") === true;
  const mayGo = dashed?.attributeName() === "output" && dashed.defaultValue === undefined && !isFolder;
  const prints = mayGo && command.options.some(({ long }) => long === "--json");
  throw new UsageError(`${dashed?.long ?? "FOLDER"} is "-": it has to name a ${isFolder ? "folder" : "file"}`, {
    hint: prints ? "leave it out and give --json, which prints what the file would hold" : undefined,
  });
}

/** @throws UsageError where an output is one of the inputs, by whatever path: the result would take its place */
export async function requireOtherOutputs(command: Command): Promise<void> {
  const flags: Record<string, unknown> = command.opts();
  const written = new Set<string>([...outputs, ...(outputOf[command.name()] ?? [])]);
  const read = [
    ...command.processedArgs.flatMap(textsIn),
    ...Object.entries(flags).flatMap(([name, value]) => (written.has(name) ? [] : textsIn(value))),
  ];
  for (const name of written) {
    const path = flags[name];
    // Folders have rules of their own: `export -o` may name the checkpoint's.
    const target = typeof path === "string" && (await isFile(path)) ? await existing(path) : undefined;
    if (target === undefined) continue;
    for (const text of read) {
      if ((await Promise.all(pathsIn(text).map(existing))).includes(target)) {
        const option = command.options.find((one) => one.attributeName() === name)?.long ?? name;
        throw new UsageError(`${option} is ${quoted(path)}, which this command reads: the result would overwrite it`, {
          hint: "name another file",
        });
      }
    }
  }
}

/** What an option or argument holds: texts, lists of them, records of a parsed value. */
function textsIn(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(textsIn);
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(textsIn) : [];
}

/** `p.json@1/2` is a size of p.json, `text.jsonl=0.5` text.jsonl with a weight. */
function pathsIn(text: string): string[] {
  return [text, text.replace(/@[^@]*$/, ""), text.replace(/=[^=]*$/, "")];
}

const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() === true;

const existing = (path: string): Promise<string | undefined> => realpath(path).catch(() => undefined);
