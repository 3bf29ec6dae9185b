import { copyFile, mkdtemp, readFile, rm, truncate, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { readSafetensorsHeader } from "../../src/checkpoint/safetensors.ts";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { copyFixture, editHeader, type HeaderEntry, writeSafetensors } from "./safetensors-file.ts";

const scratch = temporaryFolder("file");
const file = join(scratch, "model.safetensors");

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

  test("names a pointer of Git LFS", async () => {
    await writeFile(file, `version https://git-lfs.github.com/spec/v1\noid sha256:${"a".repeat(64)}\nsize 11456864\n`);
    await expect(readSafetensorsHeader(file)).rejects.toMatchObject({
      message: expect.stringMatching(/is a pointer of Git LFS/),
      hint: expect.stringContaining("hf download"),
    });
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
    ["an unknown dtype", { a: { dtype: "Q4", shape: [1], data_offsets: [0, 4] } }, 4, /unknown dtype "Q4"/],
    [
      "a dtype that every object has",
      { a: { dtype: "constructor", shape: [1], data_offsets: [0, 4] } },
      4,
      /unknown dtype "constructor"/,
    ],
    [
      "one name twice",
      '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
      8,
      /4 bytes before tensor "a" belong to no tensor/,
    ],
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
    await expect(openModel(folder)).rejects.toThrow(/Shard ".*model-00002-of-00003.safetensors" is missing.*tensor "/);
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

  describe("an index that is not what the shards are", () => {
    let folder: string;
    const shards = ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"] as const;
    const editIndex = async (edit: (map: Record<string, string>) => void) => {
      const path = join(folder, "model.safetensors.index.json");
      const index = JSON.parse(await readFile(path, "utf8"));
      edit(index.weight_map);
      await writeFile(path, JSON.stringify(index));
    };
    beforeEach(async () => {
      folder = await copyFixture("glm-shared");
    });
    afterEach(() => rm(folder, { recursive: true }));

    test("refuses a tensor that it promises, no shard holds and the model needs", async () => {
      const name = "model.layers.0.self_attn.o_proj.weight";
      const { tensors } = await openTensors(folder);
      await editHeader(join(folder, tensors.get(name)?.file ?? ""), (header) => {
        header["model.layers.0.renamed"] = header[name] as HeaderEntry;
        delete header[name];
      });
      await expect(openModel(folder)).rejects.toThrow(/does not hold tensor "model.layers.0.self_attn.o_proj.weight"/);
    });

    test("may name tensors that the model does not use, in shards that are gone, too", async () => {
      await editIndex((map) => {
        map["model.layers.0.self_attn.q_a_proj.weight_scale_inv"] = shards[0];
        map["model.layers.5.embed_tokens.weight"] = "model-00009-of-00009.safetensors";
      });
      const { notes } = await openModel(folder);
      expect(notes).toEqual([expect.stringContaining("names a tensor that no file holds")]);
    });

    test("may be wrong about the shard, and lack tensors", async () => {
      await editIndex((map) => {
        const [first = "", second = ""] = Object.keys(map);
        map[first] = map[first] === shards[0] ? shards[1] : shards[0];
        delete map[second];
      });
      expect((await openModel(folder)).notes).toEqual([]);
    });

    test("is not needed where the shards are complete", async () => {
      await unlink(join(folder, "model.safetensors.index.json"));
      expect((await openTensors(folder)).files).toHaveLength(3);
      await unlink(join(folder, shards[1]));
      await expect(openTensors(folder)).rejects.toThrow(/holds 2 of 3 shards and no model.safetensors.index.json/);
    });

    test("is refused beside a model.safetensors that it does not name, unless its own files are gone", async () => {
      await copyFile(join(fixturePath("glm-pattern"), "model.safetensors"), join(folder, "model.safetensors"));
      await expect(openTensors(folder)).rejects.toThrow(/transformers reads the one, vLLM the others/);
      for (const shard of ["1", "2", "3"]) await unlink(join(folder, `model-0000${shard}-of-00003.safetensors`));
      const { files, notes } = await openTensors(folder);
      expect(files).toEqual(["model.safetensors"]);
      expect(notes).toEqual([expect.stringContaining("names files that are not there")]);
    });
  });

  test.each([
    ["model-q4.gguf", "GGUF"],
    ["pytorch_model-00001-of-00002.bin", "pickled PyTorch weights"],
    ["consolidated.00.pth", "pickled PyTorch weights"],
    ["consolidated.safetensors", "the makers' own inference code"],
    ["model0-mp8.safetensors", "the makers' own inference code"],
    ["adapter_model.safetensors", "an adapter without the model"],
    ["weights.safetensors", "other names"],
    ["weights.npz", "another framework"],
  ])("names what a folder holds instead of weights: %s", async (file, words) => {
    const folder = await mkdtemp(join(tmpdir(), "indexcache-other-"));
    await writeFile(join(folder, file), "");
    await expect(openTensors(folder)).rejects.toThrow(new RegExp(`holds no weights.*; ${file} is .*${words}`));
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
