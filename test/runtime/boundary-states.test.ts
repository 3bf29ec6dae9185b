/** Hidden states in a file: in their places, and known by a hash that needs no second reading. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fromBfloat16, StatesInFile } from "../../src/runtime/training/boundary-states.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const shape = { sequences: 20, length: 3, hiddenSize: 2 };
const perSequence = shape.length * shape.hiddenSize;
const folder = temporaryFolder("file");

/** Small whole numbers, which bfloat16 holds. */
const numbered = (first: number, count: number) =>
  Float32Array.from({ length: count * perSequence }, (_, i) => first + Math.floor(i / perSequence));

test("batches that overlap leave what was written last, and the hash is that of the file", async () => {
  const path = join(folder, "boundary.bf16");
  const states = await StatesInFile.create(path, shape);
  for (const first of [0, 8, 12]) await states.write(first, numbered(first, 8));
  await states.write(12, numbered(40, 8));
  const hash = await states.hash();
  expect(fromBfloat16(await states.read([19, 0, 13]))).toEqual(
    Float32Array.from([...numbered(47, 1), ...numbered(0, 1), ...numbered(41, 1)]),
  );
  await states.close();
  const again = await StatesInFile.reopen(path, shape, hash);
  expect(await again?.hash()).toBe(hash);
  await again?.close();
  const file = await open(path, "r+");
  await file.write(Uint8Array.of(255), 0, 1, 2 * perSequence * 7);
  await file.close();
  await expect(StatesInFile.reopen(path, shape, hash)).rejects.toThrow(/has changed/);
});
