/** `demo` from outside. That it searches and asks to the end is what `npm run demo` shows in `.ci/run`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { indexcache, indexcacheProcess, interrupt } from "./indexcache.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "indexcache-demo-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a search that cannot write ends the demo as it ends itself", async () => {
  const { status, stderr } = await indexcacheProcess(folder, ["demo", "-o", join("nowhere", "p.json")]);
  expect(status).toBe(2);
  expect(stderr).toContain("nowhere");
});

test("a pattern that the model cannot have is refused before anything is asked", async () => {
  const { status, stderr } = await indexcache(folder, ["demo", "--pattern", "FSSF"]);
  expect(status).toBe(2);
  expect(stderr).toContain("12");
});

test("Ctrl-C ends it with 130", async () => {
  const { status } = await interrupt(folder, ["demo"], "plan:", "SIGINT");
  expect(status).toBe(130);
});
