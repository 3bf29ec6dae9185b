/** Runs a command line in this process and judges what it has said. */
import { readdirSync } from "node:fs";
import process from "node:process";
import { Readable } from "node:stream";
import { vi } from "vitest";
import { runCommandLine } from "../../src/cli/program.ts";
import { controlCharacters, faultOfMessage, RefusedInWords } from "./fuzz-class.ts";

const documentedCodes = [0, 1, 2, 3, 130];

/** What is wrong with how it went; nothing where it ended well or was refused as it should. */
export async function runCaptured(
  args: readonly string[],
  folder: string,
  mayFail: readonly number[] = [1, 2],
): Promise<string | undefined> {
  let stdout = "";
  let stderr = "";
  const before = process.cwd();
  process.chdir(folder);
  const out = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    stdout += String(text);
    return true;
  });
  const err = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    stderr += String(text);
    return true;
  });
  // A value of "-" reads what is piped in: nothing, where a worker's own input never ends.
  const input = vi.spyOn(process, "stdin", "get").mockReturnValue(Readable.from([]) as unknown as typeof process.stdin);
  let code: number;
  try {
    code = await runCommandLine(["node", "indexcache", ...args]);
  } finally {
    input.mockRestore();
    out.mockRestore();
    err.mockRestore();
    process.chdir(before);
  }
  if (!documentedCodes.includes(code)) return `wrong code: ${code}`;
  if (/this is a defect|^ {4}at .*:\d+:\d+\)?$/m.test(stderr)) return `crash: ${stderr.slice(0, 1500)}`;
  if (controlCharacters.test(stdout)) return `control characters: ${JSON.stringify(stdout.slice(0, 1000))}`;
  if (controlCharacters.test(stderr)) return `control characters: ${JSON.stringify(stderr.slice(0, 1000))}`;
  if (stderr.length > 20_000) return `long message: ${stderr.length} characters, ${stderr.slice(0, 300)}`;
  if (code === 0) return undefined;
  if (!mayFail.includes(code)) return `wrong code: exit ${code}: ${stderr.slice(0, 800)}`;
  if (!/^error: /m.test(stderr)) return `wrong code: exit ${code} without an error: ${stderr.slice(0, 500)}`;
  const fault = code === 2 ? faultOfMessage(stderr, 2) : undefined;
  if (fault !== undefined) return `${fault.kind}: ${fault.words}`;
  throw new RefusedInWords(stderr);
}

/** Names below a folder, to see that nothing else was written. */
export function namesIn(folder: string): string[] {
  return readdirSync(folder).sort();
}
