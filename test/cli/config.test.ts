import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { RepeatableOption } from "../../src/cli/arguments/declared-option.ts";
import { configJsonSchema } from "../../src/cli/config/config.ts";
import { findConfig } from "../../src/cli/config/config-file.ts";
import { applySettings, settingsFor, wordsInForce } from "../../src/cli/config/settings.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { indexcache, shell, tinyModel, writeIds } from "./indexcache.ts";

let folder: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-config-"));
  await writeIds(join(folder, "ids.jsonl"), 2, 48);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

async function writeConfig(value: unknown): Promise<void> {
  await writeFile(join(folder, "indexcache.config.json"), JSON.stringify(value));
}

const text = { calibration: "ids.jsonl", "sequence-length": 48 };

describe("a config file", () => {
  test("counts less than the environment, and that less than the command line", async () => {
    await writeConfig({
      common: { model: tinyModel, pattern: "FFFFS", ...text },
      loss: { pattern: "FSSSS" },
      eval: { suite: "ruler" },
    });
    const pattern = async (...words: string[]): Promise<unknown> => {
      const { stdout, stderr } = await indexcache(folder, ["loss", "--json", "-q", ...words]);
      expect(stderr).not.toContain("error");
      return (JSON.parse(stdout) as { index_topk_pattern: string }).index_topk_pattern;
    };
    expect(await pattern()).toBe("FSSSS");
    vi.stubEnv("INDEXCACHE_PATTERN", "FFSSS");
    expect(await pattern()).toBe("FFSSS");
    expect(await pattern("-p", "FFFSS")).toBe("FFFSS");
    vi.unstubAllEnvs();
    // As a shell hands it over, once.
    const told = await shell(folder, "INDEXCACHE_JSON=1 $indexcache loss -v -p FFFSS");
    expect(told.stderr).toContain('setting: calibration is ids.jsonl (indexcache.config.json, "common")\n');
    expect(told.stderr).toContain("setting: json is true (INDEXCACHE_JSON)\n");
    expect(told.stderr).not.toContain("setting: pattern");
    // Without the file there is no model but the demo, and no text but its own.
    const without = await indexcache(folder, ["--no-config", "loss", tinyModel]);
    expect(without).toMatchObject({ status: 2, stderr: expect.stringContaining("-c is missing") });
  });

  test("names files that stand relative to it, and is recorded in what comes out", async () => {
    await mkdir(join(folder, "sub"));
    await writeConfig({ common: text, search: { model: tinyModel, retain: "2", strategy: "greedy", "no-such": 1 } });
    const sub = join(folder, "sub");
    const args = ["--config", "../indexcache.config.json", "search", "-o", "p.json", "-q"];
    expect(await indexcache(sub, args)).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^error: Config file "..\/indexcache.config.json": "search": .*"no-such"/),
    });
    await writeConfig({ common: text, search: { model: tinyModel, retain: "2", strategy: "greedy" } });
    expect(await indexcache(sub, args)).toMatchObject({ status: 0 });
    const { tool, index_topk_pattern: letters } = await readPatternFile(join(sub, "p.json"));
    expect(letters.match(/F/g)).toHaveLength(2);
    expect(tool.command).toContain("--retain=2");
    expect(tool.command).toContain("--calibration=../ids.jsonl");
    // What is recorded gives the same without the file.
    const words = (tool.command ?? "").replace("--config ../indexcache.config.json", "--no-config");
    const again = await shell(sub, `$${words} --fresh --json`);
    expect(JSON.parse(again.stdout)).toMatchObject({ index_topk_pattern: letters });
  });

  test.each([
    ["not JSON", "{", "is not JSON"],
    ["no object", '{"loss": 3}', '"loss" must be an object'],
    ["a list", '{"loss": []}', '"loss" must be an object'],
    ["an option outside of a section", '{"retain": "1/2"}', '"common" holds for all of them'],
    ["an unknown command", '{"los": {}}', '"los" is no command'],
    ["a command that takes none", '{"init": {"model": "x"}}', '"init" is no command that takes settings'],
    ["an unknown key", '{"loss": {"patern": "full"}}', '"loss": Unrecognized key: "patern"'],
    ["a key that no command has", '{"common": {"patern": "full"}}', '"common" has "patern", no option'],
    ["a wrong type", '{"loss": {"pattern": true}}', '"loss.pattern": must be a text, a number, or a list'],
    ["a switch with text", '{"loss": {"json": "yes"}}', '"loss.json": Invalid input: expected boolean'],
    ["a value that its option refuses", '{"loss": {"sequences": "many"}}', '"loss.sequences" is "many": It must be a'],
    ["no choice", '{"loss": {"dtype": "int8"}}', '"loss.dtype": Invalid option'],
    ["a secret", '{"loss": {"api-key": "x"}}', 'Unrecognized key: "api-key"'],
  ])("is refused with %s, with file and field", async (_, content, words) => {
    await writeFile(join(folder, "indexcache.config.json"), content);
    for (const command of [["loss", tinyModel], ["config"]]) {
      const outcome = await indexcache(folder, command);
      expect(outcome).toMatchObject({ status: 2, stdout: "" });
      expect(outcome.stderr).toContain('error: Config file "indexcache.config.json"');
      expect(outcome.stderr).toContain(words);
    }
    expect(await indexcache(folder, ["loss", "--help"])).toMatchObject({ status: 0 });
  });

  test("is shown, with what the environment sets and what nobody reads", async () => {
    await writeConfig({ loss: { sequences: 2 } });
    const shown = await shell(folder, "INDEXCACHE_SEED=7 INDEXCACHE_SEQUENCE=1 $indexcache config loss --json");
    const rows = z
      .array(z.object({ option: z.string(), value: z.unknown(), from: z.string() }))
      .parse(JSON.parse(shown.stdout));
    expect(rows).toContainEqual({ option: "sequences", value: 2, from: 'indexcache.config.json, "loss"' });
    expect(rows).toContainEqual({ option: "seed", value: "7", from: "INDEXCACHE_SEED" });
    expect(rows).toContainEqual({ option: "device", value: "auto", from: "default" });
    const file = await shell(folder, "INDEXCACHE_SEQUENCE=1 $indexcache config");
    expect(file.stdout).toMatch(/^loss +sequences +2 +indexcache.config.json, "loss"$/m);
    expect(file.stderr).toBe("warning: INDEXCACHE_SEQUENCE is set, and no option reads it\n");
  });

  test.each([
    ["INDEXCACHE_SEQUENCES=many", 'INDEXCACHE_SEQUENCES is "many": It must be a whole number.'],
    ["INDEXCACHE_JSON=maybe", "INDEXCACHE_JSON is a switch"],
  ])("and %s in the environment is refused", async (assignment, words) => {
    const outcome = await shell(folder, `${assignment} $indexcache loss ${tinyModel}`);
    expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining(words) });
  });
});

test("the command line replaces lists, and options that it conflicts with", () => {
  const build = () => {
    const program = new Command("indexcache").exitOverride();
    const command = program
      .command("work")
      .argument("[model]")
      .addOption(new RepeatableOption("-p, --pattern <pattern>", "several"))
      .addOption(new Option("--device <name>").default("auto"))
      .addOption(new Option("--devices <list>").conflicts(["device"]))
      .option("--cache <folder>")
      .option("--no-cache")
      .option("--reuse <journals...>")
      .action(() => {});
    return { program, command };
  };
  const sections = { work: { model: "m", pattern: ["a", "b"], device: "cuda", cache: false, reuse: ["x", "y"] } };
  const config = { path: "indexcache.config.json", sections: new Map(Object.entries(sections)) };
  const parse = (...words: string[]) => {
    const { program, command } = build();
    applySettings(command, settingsFor(command, config, {}));
    program.parse(["work", ...words], { from: "user" });
    return { flags: command.opts(), args: command.processedArgs as unknown[], words: wordsInForce(command) };
  };
  expect(parse()).toEqual({
    flags: { pattern: ["a", "b"], device: "cuda", cache: false, reuse: ["x", "y"] },
    args: ["m"],
    words: ["m", "--pattern=a", "--pattern=b", "--device=cuda", "--no-cache", "--reuse=x", "--reuse=y"],
  });
  expect(parse("-p", "c", "-p", "d", "--devices", "all", "--cache", "here", "n")).toEqual({
    flags: { pattern: ["c", "d"], device: "auto", devices: "all", cache: "here", reuse: ["x", "y"] },
    args: ["n"],
    words: ["--reuse=x", "--reuse=y"],
  });
});

test("the nearest file counts, within the repository or the home folder", async () => {
  const deep = join(folder, "repository", "a", "b");
  await mkdir(deep, { recursive: true });
  await writeFile(join(folder, "indexcache.config.json"), "{}");
  expect(findConfig(deep, "/nowhere")).toBeUndefined();
  expect(findConfig(folder, "/nowhere")).toBe("indexcache.config.json");
  expect(findConfig(deep, folder)).toBe(join("..", "..", "..", "indexcache.config.json"));
  await mkdir(join(folder, "repository", ".git"));
  expect(findConfig(deep, folder)).toBeUndefined();
  await writeFile(join(folder, "repository", "a", "indexcache.config.json"), "{}");
  expect(findConfig(deep, folder)).toBe(join("..", "indexcache.config.json"));
});

test("docs/config.schema.json is the schema of config files", async () => {
  await expect(configJsonSchema(await buildProgram())).toMatchFileSnapshot("../../docs/config.schema.json");
  expect(await readFile(join(import.meta.dirname, "../../docs/config.md"), "utf8")).toContain("config.schema.json");
});
