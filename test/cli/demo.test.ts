/** `demo` from outside. That it searches and asks to the end is what `npm run demo` shows in `.ci/run`. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, indexcacheProcess, interrupt } from "./indexcache.ts";

const folder = temporaryFolder("file");

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
