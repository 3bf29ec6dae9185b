/** Files that are read side by side: the same answers and sentences as one after the other, and an end when it is asked for. */
import { createHash } from "node:crypto";
import { mkdtemp, open, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { InterruptedError } from "../../src/base/errors.ts";
import { readUserBlocks } from "../../src/base/user-files.ts";
import { ReaderCount } from "../../src/checkpoint/reader-count.ts";
import type { FileTask } from "../../src/checkpoint/weight-file.ts";
import { hashFiles } from "../../src/checkpoint/weight-findings.ts";
import {
  type OnFile,
  type ReadingSettings,
  readSideBySide,
  readWeightFiles,
} from "../../src/checkpoint/weight-readers.ts";

const bytes = 80 << 20;
const header = 104;
const columns = 1 << 10;
const rows = (bytes - header) / 2 / columns - 1 / columns;
const nearEnd = bytes - 2 * columns;
let folder: string;

/** Five files of which each ends in other bytes; a length that no block divides. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "indexcache-readers-"));
  for (let file = 0; file < 5; file++) await write(file, bytes - 2, file + 1);
});
/** What tests damage. */
afterEach(async () => {
  await write(1, nearEnd, 0, 0);
  await write(2, header, 0, 0);
  await write(3, bytes - 2, 4);
});
afterAll(async () => rm(folder, { recursive: true }));

const pathOf = (file: number): string => join(folder, `model-${file}.safetensors`);

async function write(file: number, at: number, ...values: number[]): Promise<void> {
  const handle = await open(pathOf(file), "a+").then(async (made) => {
    await made.close();
    return open(pathOf(file), "r+");
  });
  if ((await handle.stat()).size < bytes) await handle.truncate(bytes);
  await handle.write(Uint8Array.from(values), 0, values.length, at);
  await handle.close();
}

const task = (file: number, hashes = true): FileTask => ({
  path: pathOf(file),
  hashes,
  pieces: [
    { name: "small", dtype: "F32", shape: [1], offset: 100, length: 4 },
    { name: "large", dtype: "BF16", shape: [Math.ceil(rows), columns], offset: header, length: bytes - header },
  ],
  bytes,
});
const tasks = (hashes = true): FileTask[] => [0, 1, 2, 3, 4].map((file) => task(file, hashes));

/** All readers at once, where a run begins with one: so that it is certain that files are read side by side. */
const onCores = (cores: number) => (asked: readonly FileTask[], settings: ReadingSettings, onFile: OnFile) =>
  cores === 1
    ? readWeightFiles(asked, settings, onFile, 1)
    : readSideBySide(asked, settings, onFile, new ReaderCount(cores, cores));

async function read(asked: readonly FileTask[], cores: number, settings: ReadingSettings = {}) {
  const answers = new Map<number, string | undefined>();
  let count = 0;
  const onBytes = (more: number): void => {
    count += more;
    settings.onBytes?.(more);
  };
  const onFile = async (index: number, sha256: string | undefined): Promise<void> => {
    answers.set(index, sha256);
  };
  await onCores(cores)(asked, { ...settings, onBytes }, onFile);
  return { answers: [...answers].sort(([a], [b]) => a - b), count };
}

async function hashOf(file: number): Promise<string> {
  const hash = createHash("sha256");
  for await (const block of readUserBlocks(pathOf(file), "a file")) hash.update(block);
  return hash.digest("hex");
}

test.each([1, 2, 16])("hashes are those of the files on %i cores, and every byte is read once", async (cores) => {
  const expected = await Promise.all([0, 1, 2, 3, 4].map(async (file) => [file, await hashOf(file)]));
  expect(await read(tasks(), cores)).toEqual({ answers: expected, count: 5 * bytes });
});

test("large files are read by threads that begin with one, and small ones by none", async () => {
  const paths = tasks().map(({ path }) => path);
  const hashed: (string | undefined)[] = [];
  const keep = async (index: number, sha256: string | undefined): Promise<void> => {
    hashed[index] = sha256;
  };
  const threads = (): number => process.getActiveResourcesInfo().filter((name) => name === "MessagePort").length;
  const before = threads();
  await readWeightFiles(tasks(), {}, keep, 4);
  expect(hashed).toEqual(await hashFiles(paths, { afresh: true }));
  // They end on their own, which takes them a moment.
  await vi.waitFor(() => expect(threads()).toBe(before), { timeout: 20_000 });
  const seen = new Set<number>();
  const onBytes = (): void => void seen.add(threads() - before);
  await readWeightFiles(
    tasks().map((each) => ({ ...each, bytes: 1 << 20 })),
    { onBytes },
    async () => {},
    4,
  );
  expect([...seen]).toEqual([0]);
  await readWeightFiles(tasks(), { onBytes }, async () => {}, 4);
  expect(Math.max(...seen)).toBeGreaterThan(0);
});

test("without hashes only weights are read", async () => {
  const { answers, count } = await read(tasks(false), 4);
  expect(answers).toEqual([0, 1, 2, 3, 4].map((file) => [file, undefined]));
  expect(count).toBe(5 * (bytes - 100));
});

test.each([1, 2, 16])(
  "the first file that is not in order is named on %i cores, whichever is met first",
  async (cores) => {
    // In the second file near its end, in the third at its start.
    await write(1, nearEnd, 0x80, 0x7f);
    await write(2, header, 0xc0, 0x7f);
    const element = (nearEnd - header) / 2;
    const words = `"${pathOf(1)}", tensor "large": element [${Math.floor(element / columns)}, ${element % columns}] is not finite (NaN or infinite)`;
    await expect(read(tasks(), cores)).rejects.toMatchObject({ code: "E_INPUT", message: words });
    await expect(read(tasks(false), cores)).rejects.toMatchObject({
      message: words,
      hint: expect.stringContaining("the file is damaged"),
    });
    await write(1, nearEnd, 0, 0);
    await expect(read(tasks(), cores)).rejects.toThrow(
      `"${pathOf(2)}", tensor "large": element [0, 0] is not finite (NaN or infinite)`,
    );
  },
);

test.each([1, 4])("a file that became shorter, on %i cores", async (cores) => {
  await truncate(pathOf(3), bytes - 10);
  await expect(read(tasks(false), cores)).rejects.toThrow(`"${pathOf(3)}" became shorter while it was read`);
});

test.each([1, 4])("a file that is not there, on %i cores", async (cores) => {
  const asked = tasks().with(2, { ...task(2), path: join(folder, "none") });
  await expect(read(asked, cores)).rejects.toThrow(`Cannot read "${join(folder, "none")}": no such file or folder`);
});

test.each([1, 4])("ends after the signal, and before it begins, on %i cores", async (cores) => {
  const abort = new AbortController();
  let count = 0;
  const onBytes = (more: number): void => {
    count += more;
    if (count > bytes) abort.abort();
  };
  await expect(read(tasks(), cores, { signal: abort.signal, onBytes })).rejects.toThrow(InterruptedError);
  // What the threads had told already does not come any more.
  const heard = count;
  expect(heard).toBeLessThan(2 * bytes);
  await hashOf(0);
  expect(count).toBe(heard);
  await expect(read(tasks(), cores, { signal: abort.signal, onBytes })).rejects.toThrow(InterruptedError);
  expect(count).toBe(heard);
});

test.each([1, 4])("what a listener throws ends the reading, on %i cores", async (cores) => {
  const onBytes = (): void => {
    throw new RangeError("enough");
  };
  await expect(read(tasks(), cores, { onBytes })).rejects.toThrow("enough");
  const onFile = async (index: number): Promise<void> => {
    if (index > 0) throw new RangeError(`not file ${index}`);
  };
  await expect(onCores(cores)(tasks(), {}, onFile)).rejects.toThrow("not file 1");
});
