import { rmSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type DerivedCheckpoint,
  formatIndex,
  placements,
  type ReplacedTensor,
  writeDerivedCheckpoint,
} from "../../src/checkpoint/derived/derived-checkpoint.ts";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const shared = fixturePath("glm-shared");
const shard = (number: number): string => `model-0000${number}-of-00003.safetensors`;

const folder = temporaryFolder("file");

/** The fixture with its first shard rewritten, less one tensor, and one that is computed. */
async function derived(): Promise<DerivedCheckpoint & { left: string; added: Uint8Array }> {
  const { tensors } = await openTensors(shared);
  const inFirst = [...tensors.values()].filter(({ file }) => file === shard(1)).sort((a, b) => a.offset - b.offset);
  const [left, ...kept] = inFirst;
  if (left === undefined) throw new RangeError("no tensors");
  const added = new Uint8Array(new Float32Array([1, 2, 3]).buffer);
  const weightMap = new Map([...tensors.values()].map(({ name, file }) => [name, file]));
  weightMap.delete(left.name);
  weightMap.set("extra", shard(1));
  return {
    left: left.name,
    added,
    shards: [
      {
        file: shard(1),
        metadata: { format: "pt" },
        tensors: [
          ...kept.map(({ name, dtype, shape, offset, length, file }) => ({
            name,
            dtype,
            shape,
            data: { path: join(shared, file), offset, length },
          })),
          { name: "extra", dtype: "F32", shape: [3], data: () => [added.subarray(0, 5), added.subarray(5)] },
        ],
      },
      { file: shard(2), source: join(shared, shard(2)) },
      { file: shard(3), source: join(shared, shard(3)) },
    ],
    files: [
      { name: "model.safetensors.index.json", content: formatIndex(weightMap, { total_size: 1 }) },
      { name: "config.json", source: join(shared, "config.json") },
    ],
  };
}

describe("writeDerivedCheckpoint()", () => {
  test.each(placements)("writes what was asked, other shards by %s", async (placement) => {
    const target = join(folder, placement);
    const { left, added, ...checkpoint } = await derived();
    const report = await writeDerivedCheckpoint(target, checkpoint, { placement });
    expect(report).toMatchObject({ rewritten: [shard(1)], unchanged: [shard(2), shard(3)] });
    const before = await openTensors(shared);
    const after = await openTensors(target);
    expect([...after.tensors.keys()].sort()).toEqual(
      [...before.tensors.keys(), "extra"].filter((name) => name !== left).sort(),
    );
    for (const [name, tensor] of after.tensors) {
      const source = before.tensors.get(name);
      const expected =
        source === undefined
          ? added
          : (await readFile(join(shared, source.file))).subarray(source.offset, source.offset + source.length);
      const bytes = await readFile(join(target, tensor.file));
      expect(Buffer.compare(bytes.subarray(tensor.offset, tensor.offset + tensor.length), expected)).toBe(0);
    }
    expect((await lstat(join(target, shard(2)))).isSymbolicLink()).toBe(placement === "symlink");
    expect((await stat(join(target, shard(2)))).ino === (await stat(join(shared, shard(2)))).ino).toBe(
      placement !== "copy",
    );
    expect(await readFile(join(target, "config.json"), "utf8")).toBe(
      await readFile(join(shared, "config.json"), "utf8"),
    );
  });

  test("links to the blob, not to the link of a download cache", async () => {
    const snapshot = join(folder, "snapshot");
    await mkdir(snapshot);
    for (const name of [shard(2), shard(3)]) await symlink(join(shared, name), join(snapshot, name));
    const target = join(folder, "of-links");
    const shards = [2, 3].map((number) => ({ file: shard(number), source: join(snapshot, shard(number)) }));
    await writeDerivedCheckpoint(target, { shards, files: [] }, { placement: "symlink" });
    rmSync(snapshot, { recursive: true });
    expect((await stat(join(target, shard(3)))).size).toBe((await stat(join(shared, shard(3)))).size);
  });

  test("refuses a folder that holds something, and fills an empty one", async () => {
    const target = join(folder, "taken");
    await mkdir(target);
    const checkpoint = await derived();
    await writeFile(join(target, "a"), "");
    await expect(writeDerivedCheckpoint(target, checkpoint)).rejects.toThrow("is not empty");
    rmSync(join(target, "a"));
    await writeDerivedCheckpoint(target, checkpoint);
    expect(await readdir(target)).toContain("config.json");
  });

  test("leaves nothing after an interruption, or data of the wrong length", async () => {
    const place = join(folder, "interrupted");
    await mkdir(place);
    const { shards, files } = await derived();
    const controller = new AbortController();
    const stopped = writeDerivedCheckpoint(
      join(place, "model"),
      { shards, files },
      { signal: controller.signal, onProgress: () => controller.abort() },
    );
    await expect(stopped).rejects.toThrow("Interrupted: nothing was written");
    const wrong = { name: "a", dtype: "F32", shape: [2], data: () => [new Uint8Array(4)] };
    await expect(
      writeDerivedCheckpoint(join(place, "model"), { shards: [{ file: shard(1), tensors: [wrong] }], files }),
    ).rejects.toThrow('Tensor "a" has 4 bytes of data, its shape takes 8');
    expect(await readdir(place)).toEqual([]);
  });

  test.each(placements)(
    "writes tensors over those of a copy, whatever %s says, and never over a link",
    async (placement) => {
      const source = join(folder, `read-only-${placement}`);
      await mkdir(source);
      const original = await readFile(join(shared, shard(1)));
      await writeFile(join(source, shard(1)), original, { mode: 0o444 });
      const [first, second] = [...(await openTensors(shared)).tensors.values()].filter(({ file }) => file === shard(1));
      if (first === undefined || second === undefined) throw new RangeError("no tensors");
      const filled = ({ name, offset, length }: typeof first, byte: number) => ({
        ...{ name, offset, length },
        data: () => [new Uint8Array(length - 1).fill(byte), new Uint8Array(1).fill(byte)],
      });
      const target = join(folder, `replaced-${placement}`);
      const shards = (replaced: ReplacedTensor[]) => [{ file: shard(1), source: join(source, shard(1)), replaced }];
      const all = shards([filled(second, 7), filled(first, 9)]);
      const report = await writeDerivedCheckpoint(target, { shards: all, files: [] }, { placement });
      expect(report).toMatchObject({ rewritten: [shard(1)], unchanged: [], bytes: original.length });
      const expected = Buffer.from(original);
      for (const [{ offset, length }, byte] of [
        [first, 9],
        [second, 7],
      ] as const) {
        expected.fill(byte, offset, offset + length);
      }
      expect(Buffer.compare(await readFile(join(target, shard(1))), expected)).toBe(0);
      expect((await lstat(join(target, shard(1)))).isSymbolicLink()).toBe(false);
      expect(Buffer.compare(await readFile(join(source, shard(1))), original)).toBe(0);
      const short = shards([{ ...filled(first, 9), data: () => [new Uint8Array(1)] }]);
      await expect(writeDerivedCheckpoint(join(folder, "short"), { shards: short, files: [] })).rejects.toThrow(
        `has 1 bytes of data, its shape takes ${first.length}`,
      );
      expect(await readdir(folder)).not.toContain("short");
    },
  );

  test("compares with the free space before it starts", async () => {
    const huge = { name: "a", dtype: "F32", shape: [1 << 30, 1 << 20], data: () => [] };
    await expect(
      writeDerivedCheckpoint(join(folder, "huge"), { shards: [{ file: shard(1), tensors: [huge] }], files: [] }),
    ).rejects.toThrow(/free, the new checkpoint takes [\d.]+ [KMGT]iB: nothing was written/);
    expect(await readdir(folder)).not.toContain("huge");
  });
});
