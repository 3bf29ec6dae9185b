/** Two processes never write one journal. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { expect, test, vi } from "vitest";
import { claimFile, releaseFile } from "../../src/base/sole-writer.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const compiled = join(import.meta.dirname, "..", "..", "dist", "base", "sole-writer.js");

const folder = temporaryFolder("file");

/** Another process that claims the file, and says what it got. */
async function other(path: string): Promise<{ child: ChildProcess; got: string }> {
  const script = `const { claimFile } = await import(${JSON.stringify(compiled)});
    console.log(await claimFile(${JSON.stringify(path)}));
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [got] = (await once(child.stdout, "data")) as [Buffer];
  return { child, got: got.toString().trim() };
}

test("a file belongs to the process that claims it first, by whatever path, until it releases it or dies", async () => {
  await symlink(folder, join(folder, "link"));
  const path = join(folder, "p.json.journal.jsonl");
  expect(await claimFile(path)).toBe(true);
  expect(await claimFile(path)).toBe(true);
  const second = await other(join(folder, "link", "p.json.journal.jsonl"));
  expect(second.got).toBe("false");
  second.child.kill("SIGKILL");

  await releaseFile(path);
  const third = await other(path);
  expect(third.got).toBe("true");
  expect(await claimFile(path)).toBe(false);
  expect(await claimFile(join(folder, "other"))).toBe(true);
  await releaseFile(join(folder, "other"));
  third.child.kill("SIGKILL");
  await vi.waitFor(async () => expect(await claimFile(path)).toBe(true));
  await releaseFile(path);
});
