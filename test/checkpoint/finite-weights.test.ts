/** NaN and infinity in weights: found wherever they are, also where losses would not show them. */
import { execFile } from "node:child_process";
import { readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { InterruptedError } from "../../src/base/errors.ts";
import { hashBytes } from "../../src/base/files.ts";
import { smallestRemembered } from "../../src/base/hash-memory.ts";
import { hashFile } from "../../src/base/user-files.ts";
import { firstNonFinite } from "../../src/checkpoint/dtype.ts";
import { requireFiniteWeights } from "../../src/checkpoint/weight-findings.ts";
import { listWeights } from "../../src/checkpoint/weights.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { writeIds } from "../cli/indexcache.ts";
import { fixturePath } from "../oracle.ts";
import { copyFixture, editHeader, pokeTensor } from "./safetensors-file.ts";
import { e4m3 } from "./tensor-file.ts";

const command = join(import.meta.dirname, "..", "..", "bin", "indexcache.js");
const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

const nan = new Uint8Array(Float32Array.of(Number.NaN).buffer);
const infinity = new Uint8Array(Float32Array.of(-Infinity).buffer);

async function poked(name: string, file: string, tensor: string, at: number, bytes: Uint8Array): Promise<string> {
  const folder = await copyFixture(name);
  folders.push(folder);
  await pokeTensor(join(folder, file), tensor, at, bytes);
  return folder;
}

const look = async (folder: string) => requireFiniteWeights(await (await openModel(folder)).weights());

test.each(["glm-groups", "glm-shared", "glm-pattern", "v32-fp8"])("%s is in order", async (name) => {
  await expect(look(fixturePath(name))).resolves.toBeUndefined();
});

test.each([
  ["model.layers.1.self_attn.indexer.wq_b.weight", 37, nan, "element [1, 1]"],
  ["model.layers.1.self_attn.indexer.k_norm.bias", 3, infinity, "element [3]"],
  ["model.layers.2.mlp.gate.weight", 41, nan, "element [1, 1]"],
  ["model.layers.2.mlp.gate.e_score_correction_bias", 0, infinity, "element [0]"],
  ["model.layers.4.mlp.experts.7.down_proj.weight", 0, nan, "element [0, 0]"],
  ["model.norm.weight", 39, nan, "element [39]"],
])("%s: refused, naming the place", async (tensor, at, bytes, place) => {
  const folder = await poked("glm-groups", "model.safetensors", tensor, at, bytes);
  await expect(look(folder)).rejects.toThrow(
    `"${folder}/model.safetensors", tensor "${tensor}": ${place} is not finite (NaN or infinite)`,
  );
});

test("what the model does not use is not looked at", async () => {
  const folder = await poked(
    "glm-shared",
    "model-00003-of-00003.safetensors",
    "model.layers.5.eh_proj.weight",
    0,
    Uint8Array.of(0xc0, 0x7f),
  );
  await expect(look(folder)).resolves.toBeUndefined();
});

test("loss refuses what would not show in it", async () => {
  const tensor = "model.layers.2.mlp.gate.e_score_correction_bias";
  const folder = await poked("glm-groups", "model.safetensors", tensor, 1, nan);
  const text = join(folder, "ids.jsonl");
  await writeIds(text, 2, 252);
  const run = promisify(execFile)(process.execPath, [command, "loss", folder, "-c", text, "-q"]);
  await expect(run).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining(`tensor "${tensor}"`) });
});

/** Adds a tensor that the model does not use, so large that what is found in the file is remembered. */
async function enlarge(path: string): Promise<void> {
  await editHeader(path, (header) => {
    const end = Math.max(...Object.values(header).map(({ data_offsets }) => data_offsets?.[1] ?? 0));
    header[`${basename(path)}.not.used`] = {
      dtype: "U8",
      shape: [smallestRemembered],
      data_offsets: [end, end + smallestRemembered],
    };
  });
  await truncate(path, (await stat(path)).size + smallestRemembered);
}

/** A file that was just changed is not remembered; this one was changed a while ago. */
const settled = () => vi.useFakeTimers({ toFake: ["Date"], now: vi.getRealSystemTime() + 1100 });

test("a large file is looked at once, and again when it was written to or other tensors are used", async () => {
  const folder = await copyFixture("glm-groups");
  folders.push(folder);
  const path = join(folder, "model.safetensors");
  vi.stubEnv("XDG_CACHE_HOME", join(folder, "cache"));
  await enlarge(path);
  const bytesRead = async (): Promise<number> => {
    let read = 0;
    const onBytes = (bytes: number) => {
      read += bytes;
    };
    await requireFiniteWeights(await (await openModel(folder)).weights(), { onBytes });
    return read;
  };
  settled();
  const whole = await bytesRead();
  expect(whole).toBeGreaterThan(10_000);
  expect(await bytesRead()).toBe(0);

  // A config whose layers use fewer tensors asks something else.
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 4 }));
  expect(await bytesRead()).toBeLessThan(whole);
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  expect(await bytesRead()).toBe(whole);

  const { mtime } = await stat(path);
  await pokeTensor(path, "model.norm.weight", 0, nan);
  await utimes(path, mtime, mtime);
  settled();
  // A file that is refused is not remembered either.
  for (let time = 0; time < 2; time++) await expect(bytesRead()).rejects.toThrow("is not finite");
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

test("whoever asks for hashes has the weights looked at in the same reading, in threads where files are large", async () => {
  const folder = await copyFixture("glm-shared");
  folders.push(folder);
  vi.stubEnv("XDG_CACHE_HOME", join(folder, "cache"));
  const { files } = await (await openModel(folder)).weights();
  expect(files).toHaveLength(3);
  for (const file of files) await enlarge(join(folder, file));
  settled();
  const model = await openModel(folder);
  const weights = await model.weights();
  let read = 0;
  const onBytes = (bytes: number) => {
    read += bytes;
  };
  const { weightHash } = await model.identity({ checks: true, onBytes });
  const hashes = await Promise.all(
    files.toSorted().map(async (file) => `${file} ${await hashFile(join(folder, file))}\n`),
  );
  expect(weightHash).toBe(hashBytes(hashes.join("")));
  expect(read).toBe(model.weightBytes);

  // Neither hashes nor weights are read again; without the memory, hashes alone are the same.
  read = 0;
  await requireFiniteWeights(weights, { onBytes });
  expect((await model.identity({ checks: true, onBytes })).weightHash).toBe(weightHash);
  expect(read).toBe(0);
  vi.stubEnv("XDG_CACHE_HOME", join(folder, "another"));
  expect((await model.identity({ onBytes })).weightHash).toBe(weightHash);
  expect(read).toBe(model.weightBytes);

  // The first in order is named, by every way to look.
  const [first, second, third] = [0, 1, 2].map((index) =>
    listWeights(weights).find(({ file }) => file === files[index]),
  );
  for (const weight of [third, second]) {
    await pokeTensor(join(folder, weight?.file ?? ""), weight?.name ?? "", 0, Uint8Array.of(0xc0, 0x7f));
  }
  settled();
  const words = `"${join(folder, second?.file ?? "")}", tensor "${second?.name}": element [0`;
  const damaged = await openModel(folder);
  await expect(damaged.identity({ checks: true })).rejects.toThrow(words);
  await expect(look(folder)).rejects.toThrow(words);
  expect((await damaged.identity()).weightHash).not.toBe(weightHash);
  const memory = await readFile(join(folder, "another", "indexcache", "hashes.jsonl"), "utf8");
  const passed = memory.split("\n").filter((line) => line.includes("passed"));
  expect(passed.map((line) => JSON.parse(line).path)).toEqual([join(folder, first?.file ?? "")]);

  const aborted = AbortSignal.abort();
  await expect(damaged.identity({ checks: true, signal: aborted })).rejects.toThrow(InterruptedError);
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

describe("firstNonFinite", () => {
  const values: [string, number, (bytes: Uint8Array) => number[]][] = [
    ["F8_E4M3", 1, (bytes) => [...bytes].map((byte) => e4m3[byte] as number)],
    ["F8_E8M0", 1, (bytes) => [...bytes].map((byte) => (byte === 255 ? Number.NaN : byte))],
    [
      "BF16",
      2,
      (bytes) => pairs(bytes).map((word) => new Float32Array(Uint32Array.of(word << 16).buffer)[0] as number),
    ],
    ["F16", 2, (bytes) => pairs(bytes).map((word) => ((word & 0x7c00) === 0x7c00 ? Number.NaN : word))],
    ["F32", 4, (bytes) => [...new Float32Array(bytes.slice().buffer)]],
  ];
  // Bytes near the ones that matter, so that numbers that are not finite are common and never certain.
  const byte = fc.oneof(fc.constantFrom(0x7f, 0xff, 0x7c, 0x80, 0x7e, 0xfe), fc.integer({ min: 0, max: 255 }));
  test.each(values)("%s: the first of any bytes", (dtype, width, read) => {
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 40 }), fc.integer({ min: 0, max: 3 }), (list, shift) => {
        const whole = list.slice(0, list.length - (list.length % width));
        const bytes = new Uint8Array([...new Array(shift).fill(0), ...whole]).subarray(shift);
        const expected = read(Uint8Array.from(bytes)).findIndex((value) => !Number.isFinite(value));
        expect(firstNonFinite(bytes, dtype)).toBe(expected);
      }),
      { numRuns: 500 },
    );
  });
});

function pairs(bytes: Uint8Array): number[] {
  return Array.from(
    { length: bytes.length / 2 },
    (_, i) => (bytes[2 * i] as number) + 256 * (bytes[2 * i + 1] as number),
  );
}
