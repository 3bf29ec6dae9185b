import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { openUserFile, readUserBlocks, readUserFile, readUserFileIfPresent } from "../../src/base/user-files.ts";

const folder = mkdtempSync(join(tmpdir(), "user-files-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);

async function drain(blocks: AsyncIterable<Buffer>): Promise<string> {
  let text = "";
  for await (const block of blocks) text += block.toString();
  return text;
}

test("a regular file and a link to one are read", async () => {
  writeFileSync(at("plain"), "words");
  symlinkSync("plain", at("link"));
  expect((await readUserFile(at("link"), "file")).toString()).toBe("words");
  expect(await drain(readUserBlocks(at("link"), "file", 2))).toBe("words");
  const file = await openUserFile(at("plain"), "file");
  await file.close();
});

describe.skipIf(process.platform === "win32")("what is no regular file is refused at once", () => {
  execFileSync("mkfifo", [at("pipe")]);
  symlinkSync("/dev/zero", at("zero"));
  symlinkSync("circle", at("circle"));
  const cases: [string, RegExp][] = [
    ["pipe", /^Cannot read set "s": it is a pipe, not a file$/],
    ["zero", /it is a device, not a file$/],
    [".", /it is a folder$/],
    ["circle", /its links lead in a circle$/],
    ["absent", /no such file or folder$/],
    ["plain/child", /a part of the path is not a folder$/],
  ];
  test.each(cases)("%s", async (name, words) => {
    writeFileSync(at("plain"), "words");
    for (const read of [readUserFile, (path: string, noun: string) => drain(readUserBlocks(path, noun))]) {
      const error = await read(at(name), 'set "s"').catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(InputError);
      expect((error as InputError).message).toMatch(words);
    }
  });

  test("a socket", async () => {
    const server = createServer().listen(at("socket"));
    await new Promise((resolve) => server.once("listening", resolve));
    await expect(readUserFile(at("socket"), "set")).rejects.toThrow("it is a socket, not a file");
    server.close();
  });
});

test("a file that is read whole has a limit, whatever its size on disk", async () => {
  writeFileSync(at("sparse"), "");
  truncateSync(at("sparse"), 5 * 2 ** 30);
  await expect(readUserFile(at("sparse"), "pattern file")).rejects.toThrow(
    "Cannot read pattern file: it has 5,120 MiB, and no such file has more than 256",
  );
});

test("absent and unreadable are told apart", async () => {
  expect(await readUserFileIfPresent(at("absent"), "file")).toBeUndefined();
  symlinkSync("nowhere", at("dangling"));
  await expect(readUserFileIfPresent(at("dangling"), "file")).rejects.toThrow(InputError);
});
