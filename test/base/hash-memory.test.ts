import { copyFile, mkdtemp, open, readFile, rm, stat, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { smallestRemembered } from "../../src/base/hash-memory.ts";
import { hashFile } from "../../src/base/user-files.ts";
import { hashFiles } from "../../src/checkpoint/weight-findings.ts";

let scratch: string;
let file: string;
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "indexcache-hashes-"));
  process.env.XDG_CACHE_HOME = join(scratch, "cache");
  file = join(scratch, "weights");
  await write(0);
  // A file that was just changed may change again within the clock's resolution: it is not remembered.
  vi.useFakeTimers({ toFake: ["Date"], now: vi.getRealSystemTime() + 1100 });
});
afterEach(async () => {
  vi.useRealTimers();
  delete process.env.XDG_CACHE_HOME;
  await rm(scratch, { recursive: true });
});

async function write(last: number): Promise<void> {
  const handle = await open(file, last === 0 ? "w" : "r+");
  await handle.truncate(smallestRemembered);
  await handle.write(Uint8Array.of(last), 0, 1, smallestRemembered - 1);
  await handle.close();
}

/** The hash, and how many bytes were read for it. */
async function hash(afresh = false): Promise<[string, number]> {
  let read = 0;
  const onBytes = (bytes: number) => {
    read += bytes;
  };
  return [(await hashFiles([file], { onBytes, afresh }))[0] as string, read];
}

test("a large file is read once", async () => {
  const whole = await hashFile(file);
  expect(await hash()).toEqual([whole, smallestRemembered]);
  expect(await hash()).toEqual([whole, 0]);
  expect(await hash(true)).toEqual([whole, smallestRemembered]);
});

test("and again when it was written to, whatever its size and time of change say", async () => {
  await hash();
  const { mtime } = await stat(file);
  await write(1);
  await utimes(file, mtime, mtime);
  expect((await stat(file)).mtimeMs).toBeCloseTo(mtime.getTime(), 0);
  expect(await hash()).toEqual([await hashFile(file), smallestRemembered]);
});

test("a damaged memory is only a lost one", async () => {
  const [whole] = await hash();
  const memory = join(scratch, "cache", "indexcache", "hashes.jsonl");
  const handle = await open(memory, "w");
  await handle.writeFile(`${(await readFile(memory)).toString()}{"path": 3}\nnonsense\n`);
  await handle.close();
  expect(await hash()).toEqual([whole, smallestRemembered]);
  expect(await hash()).toEqual([whole, 0]);
});

test("what is not accepted is told of the first file in order, also where the memory knows a later one", async () => {
  const files = [file, join(scratch, "later")];
  await copyFile(file, files[1] as string);
  const refuse = (index: number): void => {
    throw new RangeError(`not file ${index}`);
  };
  const accept = (index: number): void => {
    if (index === 1) refuse(index);
  };
  await hashFiles([files[1] as string]);
  await expect(hashFiles(files, {}, refuse)).rejects.toThrow("not file 0");
  await expect(hashFiles(files, {}, accept)).rejects.toThrow("not file 1");
});
