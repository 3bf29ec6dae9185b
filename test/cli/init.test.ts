import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { spawn } from "@lydell/node-pty";
import { beforeEach, describe, expect, test } from "vitest";
import { nextCommands } from "../../src/cli/init/init.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, plainEnvironment, program, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("test");
beforeEach(async () => {
  await writeIds(join(folder, "ids.jsonl"), 9, 130);
});

const config = async (): Promise<unknown> =>
  JSON.parse(await readFile(join(folder, "indexcache.config.json"), "utf8")) as unknown;

/** Runs `init` on a terminal, and types each answer once its question is there. */
function answering(answers: readonly (readonly [question: string, keys: string])[]) {
  return new Promise<{ exitCode: number; text: string }>((resolve) => {
    const env = { ...plainEnvironment(), TERM: "xterm-256color" };
    const terminal = spawn(process.execPath, [program, "init"], { cwd: folder, rows: 40, cols: 120, env });
    let text = "";
    // Where the part of the text begins that no answer has been found for.
    let read = 0;
    const left = [...answers];
    const answer = (): void => {
      const [next] = left;
      const at = next === undefined ? -1 : text.indexOf(next[0], read);
      if (next === undefined || at < 0) return;
      left.shift();
      read = at + next[0].length;
      // The prompt draws before it listens.
      if (next[1] !== "") setTimeout(() => terminal.write(next[1]), 250);
      answer();
    };
    terminal.onData((data) => {
      text += data;
      answer();
    });
    terminal.onExit(({ exitCode }) => resolve({ exitCode, text }));
  });
}

describe("init", () => {
  test("asks five questions, refuses a wrong answer at once, and writes what was said", async () => {
    const { exitCode, text } = await answering([
      ["Which model?", "./none\r"],
      ["Cannot", ""],
      ["Which model?", `${tinyModel}\r`],
      ["Where does it run?", "cpu\r"],
      ["Which text", "ids.jsonl\r"],
      ["How many layers", "2\r"],
      ["Which engine", "\x1b[B\r"],
    ]);
    expect(text).toContain("5 layers, 5 of them with an indexer");
    expect(text).toContain("2 of 5 layers stay Full");
    expect(exitCode).toBe(0);
    expect(await config()).toEqual({
      common: { model: tinyModel, calibration: "ids.jsonl", device: "cpu" },
      search: { retain: "2", output: "pattern.json" },
      pattern: { engine: "vllm" },
    });
    expect(text).toMatch(/init.* search --dry-run|indexcache.js search --dry-run/);
  });

  test("writes nothing when it is stopped", async () => {
    const { exitCode } = await answering([["Which model?", "\x03"]]);
    expect(exitCode).toBe(130);
    expect(existsSync(join(folder, "indexcache.config.json"))).toBe(false);
  });

  test("takes options instead of a terminal, and its commands run", async () => {
    const args = ["init", "--model", tinyModel, "-c", "ids.jsonl", "--retain", "2", "--on", "cpu", "--yes"];
    const outcome = await indexcache(folder, args);
    expect(outcome.status).toBe(0);
    const commands = outcome.stdout.trimEnd().split("\n");
    expect(commands.map((command) => command.replace(/^node \S+ /, ""))).toEqual([
      "search --dry-run",
      "search",
      "eval -p pattern.json -o eval.json",
      "report pattern.json eval.json -o report",
    ]);
    const plan = await indexcache(folder, ["search", "--dry-run", "--json"]);
    expect(JSON.parse(plan.stdout)).toMatchObject({ model: "glm-groups", targets: [2] });
  });

  test.each([
    [[], "There is no terminal to ask on"],
    [["--yes"], "--model is missing"],
    [["--model", tinyModel, "--yes"], "-c is missing"],
    [["--model", "./none", "-c", "x", "--yes"], "none"],
    [["--model", "demo", "--retain", "40", "--yes"], "more than the model's 12 layers"],
    [["--model", "demo", "--on", "tpu", "--yes"], "is no device and no address"],
    [["--model", tinyModel, "-c", "none.jsonl", "--yes"], "none.jsonl"],
  ])("refuses %j, and writes nothing", async (args, words) => {
    const outcome = await indexcache(folder, ["init", ...args]);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
    expect(existsSync(join(folder, "indexcache.config.json"))).toBe(false);
  });
});

test("the commands are those of a running engine where one computes", () => {
  const answers = { model: "m", calibration: "t", retain: "1/2, 1/4", engine: "sglang" } as const;
  const commands = nextCommands({ ...answers, place: { server: "http://127.0.0.1:1" } }, "other.json");
  expect(commands.map((command) => command.replace(/^.*?--config/, "--config"))).toEqual([
    "--config other.json search --dry-run",
    "--config other.json search",
    "--config other.json loss -p pattern.json@1/4",
    "--config other.json pattern pattern.json@1/4 --for sglang",
  ]);
});
