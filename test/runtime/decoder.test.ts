/** A decoder over caches of fixed size, run on the CPU, against one over caches that grow. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { RuntimeFailure } from "../../src/base/errors.ts";
import { reduceConfig } from "../../src/checkpoint/config/reduced-config.ts";
import { writeRandomCheckpoint } from "../../src/checkpoint/derived/random-checkpoint.ts";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { farKeys } from "../../src/graph/frames/generation-graph.ts";
import { kernelsOf, readableLimit } from "../../src/graph/layer/kernels.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { keepsWhatIsWritten } from "../../src/runtime/generate/cache-check.ts";
import type { CachedDecoder } from "../../src/runtime/generate/cached-decoder.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { decodeRun, promptRuns } from "../../src/runtime/generate/generation-runs.ts";
import { mostLikely } from "../../src/runtime/generate/sampling.ts";
import type { Decoder } from "../../src/runtime/measurement.ts";
import { fixturePath, largestDifference } from "../oracle.ts";
import { pathWithNvidiaSmi } from "./nvidia-smi.ts";

function someIds(model: ModelFolder, length: number): number[] {
  let state = 11;
  return Array.from({ length }, () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state % model.config.vocabSize;
  });
}

const quarter = (pattern: Pattern) => parsePattern(`F${"S".repeat(pattern.length - 1)}`);

/** Logits of a prompt and of greedy steps behind it. */
async function generated(decoder: Decoder, prompt: number[], steps: number) {
  const all = [await decoder.prefill(prompt)];
  for (let step = 0; step < steps; step++) all.push(await decoder.decode(mostLikely(all.at(-1) as Float32Array)));
  return all.map((logits) => Float32Array.from(logits));
}

async function compare(
  model: ModelFolder,
  pattern: Pattern,
  length: number,
  provider: "cpu" | "cuda",
  hostBytes = 2 ** 30,
) {
  const steps = 6;
  const prompt = someIds(model, length);
  const device = {
    device: "cpu",
    dtype: "float32",
    threads: 1,
    capacity: length + steps,
    provider,
    hostBytes,
  } as const;
  const decoder = await openDecoder(model, pattern, device);
  const converts = decoder.plan.some((line) => line.includes("converted in every run"));
  expect(converts, decoder.plan.join("\n")).toBe(hostBytes < 2 ** 30);
  const reference = await openDecoder(model, pattern, { device: "cpu", threads: 1 });
  const expected = await generated(reference, prompt, steps);
  const found = await generated(decoder, prompt, steps);
  expect(decoder.cacheBytes).toEqual(reference.cacheBytes);
  for (const [step, logits] of found.entries()) {
    expect(mostLikely(logits)).toBe(mostLikely(expected[step] as Float32Array));
    expect(largestDifference([...logits], [...(expected[step] as Float32Array)])).toBeLessThan(1e-4);
  }
  // The same steps again, from where the prompt ended.
  decoder.rewind(length);
  const again = await decoder.decode(mostLikely(found[0] as Float32Array));
  expect(largestDifference([...again], [...(found[1] as Float32Array)])).toBe(0);
  await Promise.all([decoder.release(), reference.release()]);
}

describe.each([
  ["glm-groups", "cuda"],
  ["glm-pattern", "cpu"],
  ["glm-shared", "cuda"],
  ["v32-yarn", "cuda"],
  ["v32-fp8", "cpu"],
] as const)("%s in %s's graph", (fixture, provider) => {
  // Shorter than index_topk, and longer with a remainder.
  it.each([5, 77])("has the logits of growing caches after %i tokens", async (length) => {
    const model = await openModel(fixturePath(fixture));
    const full = model.config.indexerLayers;
    for (const pattern of new Set([full, quarter(full)])) await compare(model, pattern, length, provider);
  });
});

describe.each(["axk2-light", "glm-groups", "v32-fp8"])("%s, weights converted in every run", (fixture) => {
  it.each([5, 77])("has the logits of growing caches after %i tokens", async (length) => {
    const model = await openModel(fixturePath(fixture));
    const full = model.config.indexerLayers;
    await compare(model, quarter(full), length, "cuda", 0);
  });
});

it("converts small weights ahead where it leaves the others as they are stored", async () => {
  const model = await openModel(fixturePath("axk2-light"));
  const pattern = model.config.indexerLayers;
  const folder = await mkdtemp(join(tmpdir(), "indexcache-casts-"));
  /** Casts of a token's run. */
  const casts = async (hostBytes: number) => {
    const profilePrefix = join(folder, `run-${hostBytes}`);
    const settings = { device: "cpu", threads: 1, capacity: 40, provider: "cuda", hostBytes, profilePrefix } as const;
    const decoder = await openDecoder(model, pattern, settings);
    expect(decoder.plan.join()).toContain("converted in every run");
    await decoder.prefill(someIds(model, 5));
    const logits = Float32Array.from(await decoder.decode(7));
    await decoder.release();
    const name = (await readdir(folder)).find((file) => file.startsWith(`run-${hostBytes}_`)) as string;
    const events: { cat: string; name: string; ts: number; args?: { op_name?: string } }[] = JSON.parse(
      await readFile(join(folder, name), "utf8"),
    );
    const last = events.filter((event) => event.name === "model_run").at(-1)?.ts ?? 0;
    return { logits, count: events.filter(({ ts, args }) => ts > last && args?.op_name === "Cast").length };
  };
  const [none, small] = [await casts(0), await casts(2 ** 12)];
  expect(small.count).toBeGreaterThan(0);
  expect(small.count).toBeLessThan(0.6 * none.count);
  expect(largestDifference([...small.logits], [...none.logits])).toBeLessThan(1e-4);
  await rm(folder, { recursive: true });
});

it.each(["glm-groups", "axk2-light"])(
  "%s: one graph for several patterns computes what the graph of each does",
  async (name) => {
    const model = await openModel(fixturePath(name));
    const full = model.config.indexerLayers;
    const patterns = [full, quarter(full), `${full.slice(0, -1)}S` as Pattern];
    const settings = { device: "cpu", threads: 1, capacity: 90, provider: "cuda" } as const;
    const [first = full, ...others] = patterns;
    const several = await openDecoder(model, first, { ...settings, others });
    for (const pattern of [...patterns.toReversed(), full]) {
      const alone = await openDecoder(model, pattern, settings);
      for (const length of [5, 77]) {
        several.startAgain(pattern);
        alone.rewind(0);
        const prompt = someIds(model, length);
        expect(await generated(several, prompt, 4)).toEqual(await generated(alone, prompt, 4));
      }
      expect(several.pattern).toBe(pattern);
      expect(several.cacheBytes).toEqual(alone.cacheBytes);
      await alone.release();
    }
    expect(() => several.startAgain(`S${full.slice(1)}` as Pattern)).toThrow("does not run S");
    await several.release();
  },
);

it("runs many layers in several branches of a graph", async () => {
  const folder = await mkdtemp(join(tmpdir(), "indexcache-deep-"));
  try {
    const shallow = JSON.parse(await readFile(join(fixturePath("axk2-light"), "config.json"), "utf8"));
    const deep = reduceConfig({ ...shallow, num_hidden_layers: 19 }, "config.json", "deep", {});
    await writeRandomCheckpoint(folder, deep, 3);
    const model = await openModel(folder);
    const full = model.config.indexerLayers;
    const pattern = parsePattern(`${full.slice(0, 3)}SSS${full.slice(6, 9)}SSSSSS${full.slice(15)}`);
    await compare(model, pattern, 5, "cuda");
    await compare(model, pattern, 77, "cuda", 0);
    // Switched layers within branches, in each of them.
    const settings = { device: "cpu", threads: 1, capacity: 90, provider: "cuda" } as const;
    const several = await openDecoder(model, full, { ...settings, others: [pattern] });
    const alone = await openDecoder(model, pattern, settings);
    several.startAgain(pattern);
    const prompt = someIds(model, 77);
    expect(await generated(several, prompt, 3)).toEqual(await generated(alone, prompt, 3));
    await Promise.all([several.release(), alone.release()]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

it("generates in float16 what it does in float32", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const pattern = model.config.indexerLayers;
  const settings = { device: "cpu", threads: 1, capacity: 90, provider: "cpu" } as const;
  const half = await openDecoder(model, pattern, { ...settings, dtype: "float16" });
  const single = await openDecoder(model, pattern, { ...settings, dtype: "float32" });
  const logitsOf = async (decoder: CachedDecoder, length: number) => {
    decoder.rewind(0);
    const prefilled = Float32Array.from(await decoder.prefill(someIds(model, length)));
    return [...prefilled, ...(await decoder.decode(7))];
  };
  // Where every key is selected, rounding is all that differs.
  expect(largestDifference(await logitsOf(half, 5), await logitsOf(single, 5))).toBeLessThan(0.02);
  // Where keys are chosen, rounding chooses others now and then.
  expect(largestDifference(await logitsOf(half, 77), await logitsOf(single, 77))).toBeLessThan(1);
  await Promise.all([half.release(), single.release()]);
});

it("gathers and cuts top-k into pieces where the prompt is long", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const { config } = model;
  const kernels = kernelsOf("cuda", OnnxType.float);
  const length = Math.max(readableLimit(config, kernels), farKeys(config)) + 100;
  expect(promptRuns(config, kernels, 0, length).map(({ way }) => way)).toEqual(
    expect.arrayContaining(["every", "read", "gather"]),
  );
  expect(decodeRun(config, length).way).toBe("far");
  await compare(model, quarter(config.indexerLayers), length, "cuda");
});

it("cuts a prompt so that every row is in one run, and pads only behind its end", async () => {
  const { config } = await openModel(fixturePath("glm-groups"));
  const kernels = kernelsOf("cuda", OnnxType.float16);
  for (const [start, end] of [
    [0, 1],
    [0, config.indexTopk],
    [0, 1000],
    [config.indexTopk + 3, 777],
  ] as const) {
    const runs = promptRuns(config, kernels, start, end);
    expect(runs[0]?.start).toBe(start);
    expect(runs.at(-1)?.end).toBe(end);
    for (const [index, run] of runs.entries()) {
      expect(run.start).toBe(index === 0 ? start : runs[index - 1]?.end);
      expect(run.padding === 0 || index === runs.length - 1).toBe(true);
      expect(run.blocks * 256).toBeGreaterThanOrEqual(run.end + run.padding);
    }
  }
});

it("refuses a model that the device cannot hold, before it loads anything", async () => {
  const folder = await mkdtemp(join(tmpdir(), "indexcache-decoder-"));
  const path = process.env.PATH;
  try {
    process.env.PATH = pathWithNvidiaSmi(folder, "0, NVIDIA L4, 23034, 100, 580.95.05, 8.9, GPU-aaaaaaaa-0000");
    const model = await openModel(fixturePath("glm-pattern"));
    const settings = { device: "cuda", dtype: "float16", capacity: 100_000 } as const;
    const error = await openDecoder(model, model.config.indexerLayers, settings).catch((reason) => reason);
    expect(error).toBeInstanceOf(RuntimeFailure);
    expect(error.message).toMatch(/needs about .* = weights .* \+ caches .* \+ one run .*; cuda has 0.10 GiB free/);
    expect(error.hint).toContain("--max-new-tokens");
  } finally {
    process.env.PATH = path;
    await rm(folder, { recursive: true, force: true });
  }
});

it("can tell caches that keep what is written from others", async () => {
  const model = await openModel(fixturePath("glm-pattern"));
  const decoder = await openDecoder(model, model.config.indexerLayers, {
    device: "cpu",
    provider: "cpu",
    capacity: 8,
  });
  expect(await keepsWhatIsWritten(decoder)).toBe(true);
  const fresh = Float32Array.from(await decoder.prefill([3, 1]));
  decoder.rewind(0);
  expect(largestDifference([...(await decoder.prefill([3, 1]))], [...fresh])).toBe(0);
  await decoder.release();
  // One that sees its last token alone.
  const forgetful = {
    vocabularySize: 64,
    decode: async (id: number) => Float32Array.of(id, 1),
    rewind: () => undefined,
  };
  expect(await keepsWhatIsWritten(forgetful)).toBe(false);
});

it("refuses more tokens than the caches were made for", async () => {
  const model = await openModel(fixturePath("glm-pattern"));
  const decoder = await openDecoder(model, model.config.indexerLayers, {
    device: "cpu",
    provider: "cpu",
    capacity: 4,
  });
  await decoder.prefill([1, 2, 3]);
  await decoder.decode(4);
  await expect(decoder.decode(5)).rejects.toThrow("made for 4 tokens, and 5 are needed");
  await decoder.release();
});
