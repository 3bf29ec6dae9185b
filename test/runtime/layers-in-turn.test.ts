/**
 * Models whose layers come and go: many patterns in one pass over the layers, the losses of single evaluations with the whole
 * model loaded to the last bit, each layer loaded once a pass.
 */
import { beforeAll, describe, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, withShared } from "../../src/pattern/pattern.ts";
import { modelSizes } from "../../src/runtime/device/model-sizes.ts";
import { StagedLosses, type StagedSettings } from "../../src/runtime/loss/staged-loss.ts";
import { partsRoom, requirePartsRoom, wholeBytes } from "../../src/runtime/loss/weight-room.ts";
import type { PatternRequest, SequenceLoss } from "../../src/runtime/measurement.ts";
import { type LayerRoom, layerRoom } from "../../src/runtime/stages/stage-sessions.ts";
import { fixturePath } from "../oracle.ts";

const plenty = 2 ** 30;
/** Longer than `index_topk`, of lengths of their own. */
const windows = [70, 83, 64].map((length, index) =>
  Int32Array.from({ length }, (_, position) => 3 + ((index * 57 + position * (position + 31)) % 80)),
);

function open(model: ModelFolder, settings: Partial<StagedSettings> = {}): Promise<StagedLosses> {
  return StagedLosses.open(model, windows, { device: "cpu", threads: 1, stateBytes: plenty, ...settings });
}

const noneStays: LayerRoom = { staysFrom: 5, headStays: false, stays: 0, passing: 0 };

describe.each(["glm-groups", "v32-fp8"])("%s", (name) => {
  let model: ModelFolder;
  let full: Pattern;
  /** A search's way: the baseline, candidates of it, a base that was a candidate, blocks of a race, unrelated patterns. */
  let steps: PatternRequest[][];
  const wanted = new Map<Pattern, SequenceLoss[]>();

  beforeAll(async () => {
    model = await openModel(fixturePath(name));
    const layers = model.config.numHiddenLayers;
    full = model.config.indexerLayers;
    const owned = [...full].flatMap((letter, layer) => (letter === "F" && layer > 0 ? [layer] : []));
    const flips = owned.map((layer) => withShared(full, layer));
    const base = flips.at(-2) as Pattern;
    const pairs = owned.filter((layer) => base[layer] === "F").map((layer) => withShared(base, layer));
    const sparsest = `F${"S".repeat(layers - 1)}` as Pattern;
    steps = [
      [{ pattern: full, base: full }],
      flips.map((pattern) => ({ pattern, base: full })),
      pairs.map((pattern) => ({ pattern, base })),
      pairs.map((pattern) => ({ pattern, base: flips[0] as Pattern, sequences: [2, 0] })),
      [full, sparsest, ...pairs].map((pattern) => ({ pattern, base: pattern })),
      [{ pattern: sparsest }],
    ];
    const whole = await open(model, { stateBytes: 0 });
    for (const { pattern } of steps.flat()) {
      if (!wanted.has(pattern)) wanted.set(pattern, (await whole.evaluate(pattern, {})).sequences);
    }
    await whole.release();
  }, 120_000);

  test.each([
    { title: "states in memory", settings: { stateBytes: plenty } },
    { title: "no room for states", settings: { stateBytes: 0 } },
    { title: "states in a file", settings: { stateBytes: 0, spillBytes: plenty } },
    { title: "the upper layers stay", settings: { room: { ...noneStays, staysFrom: 2, headStays: true } } },
    { title: "room for one pattern at a time", settings: { stateBytes: 60_000, spillBytes: 10_000 } },
  ])("$title: the losses of single evaluations", async ({ settings }) => {
    const layers = model.config.numHiddenLayers;
    const losses = await open(model, { room: { ...noneStays, staysFrom: layers }, ...settings });
    for (const requests of steps) {
      for (let done = 0; done < requests.length; ) {
        const results = await losses.evaluateAll(requests.slice(done));
        expect(results.length).toBeGreaterThan(0);
        for (const { sequences, executions } of results) {
          const { pattern, sequences: asked = [0, 1, 2] } = requests[done++] as PatternRequest;
          expect(sequences).toEqual(asked.map((index) => wanted.get(pattern)?.[index]));
          const { rows } = executions;
          const tokens = asked.reduce((sum, index) => sum + (windows[index]?.length ?? 0), 0);
          expect(executions.naiveBody).toBe(asked.length * layers);
          expect(rows.run + rows.invariant + rows.prefix + rows.kept).toBe(layers * tokens);
        }
      }
    }
    await losses.release();
  });

  test("a pass loads each layer once, however many patterns and sequences go through it, and none below them", async () => {
    const layers = model.config.numHiddenLayers;
    const losses = await open(model, { room: { ...noneStays, staysFrom: layers } });
    const { layers: parts, head } = withBytes(model, await model.weights());
    const [baseline] = await losses.evaluateAll(steps[0] as PatternRequest[]);
    expect(baseline?.executions.loads).toMatchObject({ passes: 1, layers, bytes: sum(parts) + head });
    const flips = steps[1] as PatternRequest[];
    const results = await losses.evaluateAll(flips);
    expect(results).toHaveLength(flips.length);
    const first = [...full].findIndex((_, layer) => flips.some(({ pattern }) => pattern[layer] !== full[layer]));
    expect(results[0]?.executions.loads?.layers).toBe(layers - first);
    expect(results.slice(1).every(({ executions }) => executions.loads === undefined)).toBe(true);
    await losses.release();
  });

  test("divergences are those of the whole model", async () => {
    const requests = steps[1] as PatternRequest[];
    const [whole, inParts] = [
      await open(model, { top: 16 }),
      await open(model, { top: 16, room: { ...noneStays, staysFrom: 2 } }),
    ];
    const results = await inParts.evaluateAll(requests);
    for (const [at, { pattern, base = full }] of requests.entries()) {
      expect(results[at]?.sequences).toEqual((await whole.evaluate(pattern, { base })).sequences);
    }
    await whole.release();
    await inParts.release();
  });

  test("an interrupted pass leaves nothing that would change the next", async () => {
    const losses = await open(model, { room: { ...noneStays, staysFrom: 2 }, stateBytes: 0, spillBytes: plenty });
    await expect(losses.evaluateAll(steps[1] as PatternRequest[], { signal: AbortSignal.abort() })).rejects.toThrow(
      "Interrupted",
    );
    const results = await losses.evaluateAll(steps[2] as PatternRequest[]);
    for (const [at, { pattern }] of (steps[2] as PatternRequest[]).entries()) {
      expect(results[at]?.sequences).toEqual(wanted.get(pattern));
    }
    await losses.release();
  });
});

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function withBytes(model: ModelFolder, weights: Awaited<ReturnType<ModelFolder["weights"]>>) {
  const { indexers, bodies, head } = modelSizes(weights);
  const layers = bodies.map(({ stored }, layer) => {
    const indexer = model.config.indexerLayers[layer] === "F" ? indexers[layer]?.stored : 0;
    return stored + (indexer ?? 0);
  });
  return { layers, head: head.stored };
}

describe("what stays", () => {
  const part = (loaded: number) => ({ stored: loaded / 2, loaded });
  const sizes = {
    embedding: part(10),
    indexers: [1, 1, 1, 1].map(part),
    bodies: [9, 19, 19, 19].map(part),
    head: part(15),
  };

  test.each([
    [19, undefined],
    [20, { staysFrom: 4, headStays: false, stays: 0, passing: 20 }],
    [35, { staysFrom: 4, headStays: true, stays: 15, passing: 20 }],
    [54, { staysFrom: 4, headStays: true, stays: 15, passing: 20 }],
    [55, { staysFrom: 3, headStays: true, stays: 35, passing: 20 }],
    [85, { staysFrom: 1, headStays: true, stays: 75, passing: 10 }],
    [1000, { staysFrom: 0, headStays: true, stays: 85, passing: 10 }],
  ])("in %d bytes", (bytes, room) => {
    expect(layerRoom(sizes, bytes)).toEqual(room);
  });

  test("of a model that does not fit a layer at a time is said with what it takes", async () => {
    const model = await openModel(fixturePath("glm-groups"));
    const own = modelSizes(await model.weights());
    expect(() => requirePartsRoom(model.config, own, [64], 2 ** 20)).toThrow(
      /^Model "glm-groups" does not fit, not even a layer at a time: with these sequences that takes about \d+ MiB of memory, and there are 1 MiB$/,
    );
    const found = partsRoom(model.config, own, [64], wholeBytes(own) + 2 ** 29);
    expect(found?.room.staysFrom).toBe(0);
  });
});
