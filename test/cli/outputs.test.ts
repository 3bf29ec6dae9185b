/** Where results go: never over what the command reads, and not to a disk without room in silence. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, shell, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 8, 28);
  await symlink("ids.jsonl", join(folder, "link.jsonl"));
  await writeFile(join(folder, "p.json"), "{}");
});

const text = ["-c", "ids.jsonl", "--sequence-length", "28"];

test.each([
  [["search", tinyModel, ...text, "-o", "ids.jsonl"], '--output is "ids.jsonl"'],
  [["search", tinyModel, ...text, "-o", "link.jsonl"], '--output is "link.jsonl"'],
  [
    ["search", tinyModel, "-c", "ids.jsonl=0.5", "-c", "ruler:vt=0.5", "-o", "./ids.jsonl"],
    '--output is "./ids.jsonl"',
  ],
  [["search", "merge", "p.json", "ids.jsonl", "-o", "p.json"], '--output is "p.json"'],
  [["analyze", tinyModel, ...text, "--searched", "p.json", "-o", "p.json"], '--output is "p.json"'],
  [["eval", tinyModel, "-p", "p.json@1/2", "-o", "p.json"], '--output is "p.json"'],
  [["eval", tinyModel, "-p", "FSFSF", "-p", "p.json", "--junit", "p.json"], '--junit is "p.json"'],
  [["bench", tinyModel, "-p", "p.json", "--latency", "p.json"], '--latency is "p.json"'],
])("%j would overwrite what it reads", async (args, words) => {
  const files = ["ids.jsonl", "p.json"].map((name) => join(folder, name));
  const before = await Promise.all(files.map((file) => readFile(file, "utf8")));
  const { status, stdout, stderr } = await indexcache(folder, args);
  expect(stderr).toContain(`error: ${words}, which this command reads: the result would overwrite it\n`);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(await Promise.all(files.map((file) => readFile(file, "utf8")))).toEqual(before);
});

test("JSON on stdout has keys in snake_case, as files have", async () => {
  const plan = ["distill", join(tinyModel, "config.json"), "-p", "uniform:2", "--dry-run", "--device", "cpu"];
  for (const args of [["inspect", tinyModel], ["export", tinyModel, "-o", "exported"], plan]) {
    const { status, stdout } = await indexcache(folder, [...args, "--json", "-q"]);
    expect(status).toBe(0);
    const keys: string[] = [];
    JSON.parse(stdout, (key, value) => {
      keys.push(key);
      return value;
    });
    expect(keys.length).toBeGreaterThan(8);
    expect(keys.filter((key) => /[a-z][A-Z]/.test(key))).toEqual([]);
  }
});

test("-o that names a folder says so", async () => {
  const { status, stderr } = await indexcache(folder, ["search", tinyModel, ...text, "-o", folder]);
  expect(stderr).toContain("it is a folder\n");
  expect(status).toBe(2);
});

test.runIf(existsSync("/dev/full"))("a full disk behind > is one sentence, from every kind of output", async () => {
  for (const words of ["pattern FFSF", "eval --list", "search --help"]) {
    const { status, stderr } = await shell(folder, `$indexcache ${words} > /dev/full`);
    expect(stderr).toMatch(/^(\d of .*\n)?error: Cannot write to stdout: the disk is full\n$/);
    expect(status).toBe(3);
  }
});

test("a reader that closes the pipe early is no failure", async () => {
  const { status, stderr } = await shell(folder, "set -o pipefail; $indexcache eval --list | head -1");
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
});

test.each([
  ["search -o -", '--output is "-": it has to name a file\nhint: leave it out and give --json, which'],
  ["analyze -o -", '--output is "-": it has to name a file\nhint: leave it out and give --json, which'],
  ["eval -p FFSFS -o -", '--output is "-": it has to name a file\nhint: leave it out and give --json, which'],
  ["eval -p FFSFS --cache -", '--cache is "-": it has to name a folder'],
  ["bench -p FFSFS --latency -", '--latency is "-": it has to name a file\n'],
  ["loss --profile -", '--profile is "-": it has to name a file\n'],
  ["init --model demo --yes -o -", '--output is "-": it has to name a file\n'],
  ["report p.json -o -", '--output is "-": it has to name a folder\n'],
  ["distill -p uniform:4 --work -", '--work is "-": it has to name a folder'],
  ["export model -o -", '--output is "-": it has to name a folder'],
  ["pattern apply model FFSFS -o -", '--output is "-": it has to name a folder'],
  ["pattern FFSFS --write-config -", '--write-config is "-": it has to name a folder'],
  ["kit -", 'FOLDER is "-": it has to name a folder'],
])("%s makes nothing of that name", async (words, message) => {
  const { status, stdout, stderr } = await indexcache(folder, words.split(" "));
  expect(stderr).toContain(`error: ${message}`);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(existsSync(join(folder, "-"))).toBe(false);
});

test.skipIf(process.platform === "win32")("-o takes no device's place", async () => {
  execFileSync("mkfifo", [join(folder, "pipe")]);
  for (const words of [
    ["search", tinyModel, ...text],
    ["init", "--model", "demo", "--yes", "--overwrite"],
  ]) {
    const { status, stderr } = await indexcache(folder, [...words, "-o", "pipe"]);
    expect(stderr).toContain(
      'error: Cannot write "pipe": it is a pipe, not a file\nhint: -o names the file itself, a regular one',
    );
    expect(status).toBe(2);
  }
  expect((await stat(join(folder, "pipe"))).isFIFO()).toBe(true);
});

test("a folder for temporary files that is not there is one sentence", async () => {
  const bench = `bench --config ${join(tinyModel, "config.json")} --random-weights --contexts 16`;
  for (const words of [bench, `loss ${tinyModel} ${text.join(" ")} --device cpu --profile`]) {
    const { status, stderr } = await shell(folder, `TMPDIR=/nowhere $indexcache ${words}`);
    expect(stderr).toContain('error: Cannot make a folder for temporary files in "/nowhere": no such file or folder\n');
    expect(status).toBe(2);
  }
});

test.skipIf(process.platform === "win32")("a working folder that was removed is one sentence", async () => {
  const { status, stderr } = await shell(folder, "mkdir gone && cd gone && rmdir ../gone && $indexcache inspect .");
  expect(stderr).toBe(
    "error: The folder that this was started in is not there any more\nhint: change to another one\n",
  );
  expect(status).toBe(2);
});
