import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { commandWords } from "../../src/cli/completion/command-words.ts";
import { completionScript } from "../../src/cli/completion/shell-scripts.ts";
import { isRunByAgent } from "../../src/cli/console/agent.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache, shell } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  const { stdout } = await indexcache(folder, ["completion", "bash"]);
  await writeFile(join(folder, "completion.bash"), stdout);
});

describe("completion", () => {
  test.each([
    [["indexcache", "sea"], "search"],
    [["indexcache", "--conf"], "--config"],
    [["indexcache", "search", "--stra"], "--strategy"],
    [["indexcache", "search", "--strategy", ""], "refine greedy blockwise exhaustive"],
    [["indexcache", "search", "./model", "--dt"], "--dtype"],
    [["indexcache", "search", "m"], "merge"],
    [["indexcache", "search", "merge", "--o"], "--output"],
    [["indexcache", "eval", "--suite", "ruler-"], "ruler-core"],
    [["indexcache", "run", "--device", "w"], "webgpu"],
    [["indexcache", "run", "-p", "zai-org/GLM-5/q"], "zai-org/GLM-5/quarter"],
    [["indexcache", "search", "--strategy=bl"], "blockwise"],
    // Of what holds a colon bash replaces what follows it.
    [["indexcache", "run", "-p", "freq:"], "4"],
    [["indexcache", "run", "--pattern=uniform:"], "2 4"],
    [["indexcache", "pattern", "zai-org/GLM-5/q"], "zai-org/GLM-5/quarter"],
    [["indexcache", "completion", "z"], "zsh"],
    [["indexcache", "config", "sea"], "search"],
    // A file: bash's own completion does it.
    [["indexcache", "search", "-o", "p"], ""],
  ])("of %j in bash offers %s", async (words, offered) => {
    const typed = words.join(" ");
    const line = `source completion.bash; COMP_LINE='${typed}'; COMP_POINT=${typed.length}; _indexcache; echo "\${COMPREPLY[*]}"`;
    expect(await shell(folder, line)).toEqual({ status: 0, stdout: `${offered}\n`, stderr: "" });
  });

  test("is registered with bash, and passes its syntax check", async () => {
    expect(
      (await shell(folder, "bash -n completion.bash && source completion.bash && complete -p indexcache")).stdout,
    ).toBe("complete -o default -F _indexcache indexcache\n");
  });

  test("has every command and option in every shell", async () => {
    const words = commandWords(await buildProgram());
    expect(words.length).toBeGreaterThan(15);
    const [bash, zsh, fish] = (["bash", "zsh", "fish"] as const).map((name) => completionScript(name, words));
    for (const { options } of words) {
      for (const name of options.flatMap(({ names }) => names)) {
        expect(bash).toContain(name);
        expect(zsh).toContain(`'${name}:`);
        expect(fish).toContain(name.startsWith("--") ? `-l ${name.slice(2)} ` : `-s ${name.slice(1)} `);
      }
    }
    // Quotes are balanced: an odd one would end a script that is not parsed here.
    for (const script of [zsh, fish]) {
      for (const line of script?.split("\n").filter((text) => !text.startsWith("#")) ?? []) {
        expect((line.replaceAll("'\\''", "").match(/'/g)?.length ?? 0) % 2, line).toBe(0);
      }
    }
  });

  test("refuses another shell", async () => {
    expect(await indexcache(folder, ["completion", "tcsh"])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("bash, zsh, fish"),
    });
  });
});

test("--version --json tells what a report needs", async () => {
  const { stdout, status } = await indexcache(folder, ["--version", "--json"]);
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    version: (await indexcache(folder, ["--version"])).stdout.trim(),
    commit: expect.toSatisfy((commit: unknown) => commit === null || /^[0-9a-f]{40}$/.test(String(commit))),
    node: process.versions.node,
    onnxruntime: expect.stringMatching(/^\d+\.\d+\.\d+/),
    platform: process.platform,
    architecture: process.arch,
  });
});

describe("agents", () => {
  test("are known by their variables", () => {
    expect(isRunByAgent({})).toBe(false);
    expect(isRunByAgent({ AGENT: "" })).toBe(false);
    expect(isRunByAgent({ AGENT: "0" })).toBe(false);
    expect(isRunByAgent({ CURSOR_AGENT: "1" })).toBe(true);
    expect(isRunByAgent({ GEMINI_CLI: "1" })).toBe(true);
  });

  test("get the next command as a line of its own", async () => {
    const line = `AGENT=1 $indexcache search ${demoModel} --sequences 1 --sequence-length 256 --strategy greedy --retain 11 -o p.json`;
    const { stderr } = await shell(folder, line);
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^next: node \S+ eval --pattern p.json -o p-eval.json$/);
  });

  test("get a skill file with every command, made of the options", async () => {
    const { stdout, status } = await indexcache(folder, ["--help", "--skill"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^---\nname: indexcache\ndescription: ".*"\nversion: \S+\n---\n\n# indexcache\n/);
    for (const { path, options } of commandWords(await buildProgram()).slice(1)) {
      expect(stdout).toContain(`\n## indexcache ${path}\n`);
      for (const { names } of options.filter(({ names: [name] }) => !/^--help/.test(name ?? ""))) {
        expect(stdout).toContain(names[0]);
      }
    }
    const one = await indexcache(folder, ["loss", "--help", "--skill"]);
    expect(one.stdout).toContain("\n## indexcache loss\n");
    expect(one.stdout).not.toContain("## indexcache eval");
    expect(one.stdout).toContain("```bash\nindexcache loss ");
  });
});

test("a published pattern is known by its name wherever a pattern is given", async () => {
  const args = ["loss", demoModel, "--sequences", "1", "--sequence-length", "256", "--json", "-q"];
  for (const name of ["demo/quarter@1/4", "indexcache/demo/quarter"]) {
    const { stdout } = await indexcache(folder, [...args, "-p", name]);
    expect((JSON.parse(stdout) as { index_topk_pattern: string }).index_topk_pattern).toBe("FSSFSSSSSFSS");
  }
  expect(await indexcache(folder, ["pattern", "indexcache/demo/quarter"])).toMatchObject({ stdout: "FSSFSSSSSFSS\n" });
  expect(await indexcache(folder, [...args, "-p", "zai-org/GLM-5/quarter"])).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("78 layers"),
  });
});
