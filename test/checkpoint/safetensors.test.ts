import { mkdtemp, rm, truncate, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { readSafetensorsHeader } from "../../src/checkpoint/safetensors.ts";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { copyFixture, writeSafetensors } from "./safetensors-file.ts";

let scratch: string;
let file: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "indexcache-safetensors-"));
  file = join(scratch, "model.safetensors");
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const two = (first: [number, number], second: [number, number]) => ({
  a: { dtype: "F32", shape: [(first[1] - first[0]) / 4], data_offsets: first },
  b: { dtype: "F32", shape: [(second[1] - second[0]) / 4], data_offsets: second },
});

describe("readSafetensorsHeader", () => {
  test("gives dtype, shape and absolute offsets", async () => {
    await writeSafetensors(file, { __metadata__: { format: "pt" }, ...two([0, 8], [8, 16]) }, 16);
    const tensors = await readSafetensorsHeader(file);
    expect([...tensors.keys()]).toEqual(["a", "b"]);
    const [a, b] = [tensors.get("a"), tensors.get("b")];
    expect(a).toMatchObject({ dtype: "F32", shape: [2], length: 8 });
    expect((b?.offset ?? 0) - (a?.offset ?? 0)).toBe(8);
  });

  const hostile: [string, object | string, number, RegExp][] = [
    ["a tensor beyond the end", two([0, 8], [8, 16]), 12, /tensor "b" ends at byte \d+, the file has \d+/],
    ["overlapping tensors", two([0, 8], [4, 12]), 12, /tensor "b" overlaps tensor "a"/],
    ["two names for the same bytes", two([0, 8], [0, 8]), 8, /overlaps/],
    ["a hole between tensors", two([0, 4], [8, 12]), 12, /4 bytes before tensor "b" belong to no tensor/],
    ["bytes after the last tensor", two([0, 4], [4, 8]), 12, /after the last tensor/],
    ["offsets that run backwards", { a: { dtype: "F32", shape: [1], data_offsets: [4, 0] } }, 4, /run backwards/],
    [
      "a shape that is too large",
      { a: { dtype: "F32", shape: [3], data_offsets: [0, 8] } },
      8,
      /takes 12 bytes, data_offsets give 8/,
    ],
    [
      "a shape that overflows",
      { a: { dtype: "F32", shape: [2 ** 31, 2 ** 31], data_offsets: [0, 8] } },
      8,
      /data_offsets give 8/,
    ],
    ["a negative size", { a: { dtype: "F32", shape: [-1], data_offsets: [0, 4] } }, 4, /tensor "a": shape/],
    ["an unknown dtype", { a: { dtype: "F4", shape: [1], data_offsets: [0, 4] } }, 4, /unknown dtype "F4"/],
    ["no offsets", { a: { dtype: "F32", shape: [1] } }, 4, /tensor "a": data_offsets/],
    ["a header that is a list", [], 0, /not a JSON object/],
    ["a header that is not JSON", "{{{{", 0, /not JSON/],
  ];
  test.each(hostile)("refuses %s", async (_, header, bytes, message) => {
    await writeSafetensors(file, header, bytes);
    await expect(readSafetensorsHeader(file)).rejects.toThrow(message);
    await expect(readSafetensorsHeader(file)).rejects.toThrow(file);
  });

  test("refuses a header longer than the file, also one of 2^63 bytes", async () => {
    for (const length of [100n, 2n ** 63n, 2n ** 64n - 1n]) {
      const prefix = Buffer.alloc(24);
      prefix.writeBigUInt64LE(length);
      await writeFile(file, prefix);
      await expect(readSafetensorsHeader(file)).rejects.toThrow(`header claims ${length} bytes, the file has 24`);
    }
  });

  test("refuses a file that was cut at any byte", async () => {
    await writeSafetensors(file, two([0, 8], [8, 16]), 16);
    const size = 8 + JSON.stringify(two([0, 8], [8, 16])).length + 16;
    for (let kept = size - 1; kept >= 0; kept -= 7) {
      await truncate(file, kept);
      await expect(readSafetensorsHeader(file)).rejects.toBeInstanceOf(InputError);
    }
  });

  test("answers any bytes with tensors or an InputError", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.bigInt({ min: 0n, max: 300n }), async (bytes, length) => {
        const prefix = Buffer.alloc(8);
        prefix.writeBigUInt64LE(length);
        await writeFile(file, Buffer.concat([prefix, bytes]));
        await readSafetensorsHeader(file).catch((error: unknown) => expect(error).toBeInstanceOf(InputError));
      }),
      { numRuns: 100 },
    );
  });
});

describe("openTensors", () => {
  test("names the shard that is missing and a tensor that it should hold", async () => {
    const folder = await copyFixture("glm-shared");
    await unlink(join(folder, "model-00002-of-00003.safetensors"));
    await expect(openTensors(folder)).rejects.toThrow(
      /Shard ".*model-00002-of-00003.safetensors" is missing.*tensor "/,
    );
    await rm(folder, { recursive: true });
  });

  test("refuses shard names that lead out of the folder", async () => {
    for (const shard of [
      "../model.safetensors",
      "/etc/passwd",
      "sub/x.safetensors",
      "..safetensors",
      "x\\y.safetensors",
    ]) {
      const folder = await mkdtemp(join(tmpdir(), "indexcache-escape-"));
      const index = { weight_map: { "model.norm.weight": shard } };
      await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
      await expect(openTensors(folder)).rejects.toThrow(/which is no safetensors file of this folder/);
      await rm(folder, { recursive: true });
    }
  });

  test("refuses a tensor that the index promises and the shard lacks", async () => {
    const folder = await mkdtemp(join(tmpdir(), "indexcache-index-"));
    await writeSafetensors(join(folder, "a.safetensors"), {}, 0);
    const index = { weight_map: { "model.norm.weight": "a.safetensors" } };
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
    await expect(openTensors(folder)).rejects.toThrow(/does not hold tensor "model.norm.weight"/);
    await rm(folder, { recursive: true });
  });

  test("says what a folder without weights lacks, and an index that is not one", async () => {
    const folder = await mkdtemp(join(tmpdir(), "indexcache-empty-"));
    await expect(openTensors(folder)).rejects.toThrow(/holds no weights/);
    await writeFile(join(folder, "model.safetensors.index.json"), "[]");
    await expect(openTensors(folder)).rejects.toThrow(/no weight_map/);
    await rm(folder, { recursive: true });
  });
});
