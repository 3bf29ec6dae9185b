/** The command in a real terminal: a pseudo-terminal, with the line discipline that turns a typed Ctrl-C into SIGINT. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { spawn } from "@lydell/node-pty";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache, interrupt, plainEnvironment, program, tinyModel, writeIds } from "./indexcache.ts";

const CTRL_C = "\x03";

interface Ended {
  exitCode: number;
  /** 0 for a program that ended by itself. */
  signal: number;
  text: string;
}

/** Runs the command at 80 x 40 and types `keys` once the terminal has shown `words`. */
function inTerminal(folder: string, args: readonly string[], words: string, keys: string): Promise<Ended> {
  return new Promise((resolve) => {
    // Ink draws but once where continuous integration runs it, whatever the variable's value.
    const env = { ...plainEnvironment(), TERM: "xterm-256color" };
    const terminal = spawn(process.execPath, [program, ...args], { cwd: folder, rows: 40, cols: 80, env });
    let text = "";
    let typed = false;
    terminal.onData((data) => {
      text += data;
      if (typed || !text.includes(words)) return;
      typed = true;
      terminal.write(keys);
    });
    terminal.onExit(({ exitCode, signal = 0 }) => resolve({ exitCode, signal, text }));
  });
}

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "many.jsonl"), 30, 128);
});

/** Long enough to be interrupted. */
const slow = [
  ...["search", tinyModel, "-c", "many.jsonl", "--sequence-length", "128"],
  ...["--strategy", "greedy", "--retain", "1"],
];

describe("Ctrl-C in a terminal", () => {
  test.each([["a process of its own"], ["several processes"]])(
    "saves and ends with 130 while the view is up: %s",
    async (processes) => {
      const name = processes === "several processes" ? "two" : "one";
      const workers = name === "two" ? "2" : "1";
      const args = [...slow, "--workers", workers, "-o", `${name}.json`];
      const { exitCode, signal, text } = await inTerminal(folder, args, "lowest first", CTRL_C);
      expect({ exitCode, signal }).toEqual({ exitCode: 130, signal: 0 });
      expect(text).toContain("Stopping after the layer at hand; Ctrl-C again kills");
      expect(text).toContain(`every finished evaluation is in "${name}.json.journal.jsonl"`);
      expect(text).toContain("--resume");
      // Nothing of the view is drawn below the last words.
      expect(text.slice(text.indexOf("Stopping after"))).not.toContain("candidates");
      expect(await readdir(folder)).toContain(`${name}.json.journal.jsonl`);
    },
  );

  test("twice ends at once", async () => {
    const { exitCode, signal } = await inTerminal(
      folder,
      [...slow, "--workers", "1", "-o", "twice.json"],
      "lowest first",
      CTRL_C + CTRL_C,
    );
    // The first may have been enough: the second then finds nobody.
    expect(signal === 2 || exitCode === 130).toBe(true);
  });
});

test("notes that are set in stay so, and so do their further lines", async () => {
  const args = ["pattern", "FSSFSSSSSFFS", "--model", demoModel, "--for", "vllm", "--engine-version", "0.33"];
  const { text } = await inTerminal(folder, args, "nothing is typed", "");
  expect(text).toMatch(/^ {2}- serve a checkpoint without them: /m);
  expect(text).toMatch(/^ {4}[\w-]+.*$/m);
});

describe("SIGTERM", () => {
  test.each(["1", "2"])("ends a search with %s processes, which goes on with --resume", async (workers) => {
    const output = `term-${workers}.json`;
    const args = [...slow, "--workers", workers, "-o", output];
    const ended = await interrupt(folder, args, "step 1 of", "SIGTERM");
    expect(ended).toMatchObject({ status: 130, stderr: expect.stringMatching(/hint: continue with: .* --resume/) });
    expect(await indexcache(folder, [...args, "--resume", "-q"])).toMatchObject({ status: 0 });
  });
});
