import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { unzstd } from "../../../src/formats/records/zstd.ts";

/** Two frames with checksums: 400 lines in compressed blocks, one line in a raw block. */
const packed = readFileSync(join(import.meta.dirname, "..", "..", "fuzz", "fixtures", "noise.jsonl.zst"));

async function unpack(bytes: Buffer, step: number): Promise<string> {
  async function* blocks(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
  }
  const parts: Buffer[] = [];
  for await (const part of unzstd(blocks(), 'file "a.zst"')) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString();
}

/** A frame of other data: to be passed over. */
const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
/** "aaaa" as a block of one repeated byte, without a checksum. */
const repeated = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x23, 0, 0, 0x61]);

test.each([1, 3, 1000, 1 << 18])("all frames are unpacked, %i bytes at a time", async (step) => {
  const text = await unpack(packed, step);
  expect(text.trim().split("\n")).toHaveLength(401);
  expect(await unpack(Buffer.concat([skippable, packed, skippable, repeated]), step)).toBe(`${text}aaaa`);
});

test("a changed byte, wherever it stands, is found by the checksum or before", async () => {
  const good = await unpack(packed, 1 << 18);
  for (let at = 0; at < packed.length; at += 7) {
    const changed = Buffer.from(packed);
    changed[at] = (changed[at] ?? 0) ^ 4;
    const text = await unpack(changed, 1 << 18).catch((error: unknown) => error);
    if (text !== good) expect(text).toMatchObject({ message: expect.stringMatching(/^Cannot unpack file "a.zst": /) });
  }
});

test("a cut stream is refused", async () => {
  for (const at of [3, 5, 100, packed.length - 1, packed.length - 300]) {
    await expect(unpack(packed.subarray(0, at), 64)).rejects.toThrow("unexpected end of file");
  }
});
