/** Distillation of a small model: the same bytes by every way, taken up again wherever it was cut. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Random } from "../../src/base/random.ts";
import { DistillFolder } from "../../src/distill/distill-folder.ts";
import { distil } from "../../src/distill/distillation.ts";
import type { DistillationSettings, DistillEvent } from "../../src/distill/group-training.ts";
import { defaultRecipe, patternAt, queriesAt, type Recipe, rateAt } from "../../src/distill/recipe.ts";
import { layerGroups } from "../../src/distill/training.ts";
import { indexerTensors } from "../../src/graph/layer/lightning-indexer.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { stepStates } from "../../src/graph/training/distill-graph.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { GradientSession, type IndexerParameters } from "../../src/runtime/training/gradient-session.ts";
import { LayerStates } from "../../src/runtime/training/layer-states.ts";
import { readIndexers } from "../../src/runtime/training/stored-indexers.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const length = 24;
const recipe: Recipe = { ...defaultRecipe, steps: 6, batch: 2, warmUp: 2, seed: 5 };
const pattern = parsePattern("FSFSS");
const fingerprint = {
  model_config_hash: "a",
  weight_hash: "b",
  text_hash: "c",
  held_out_hash: "d",
  pattern,
  settings: {},
  tool_version: "0",
};

let model: ModelFolder;
const folder = temporaryFolder("file");
beforeAll(async () => {
  model = await openModel(fixturePath("glm-groups"));
});

function windows(count: number, seed: number): Int32Array[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => Int32Array.from({ length }, () => random.integer(0, 82)));
}
const text = { training: windows(5, 1), heldOut: windows(2, 2) };

const settings = (changes: Partial<DistillationSettings> = {}): DistillationSettings => ({
  pattern,
  recipe,
  weight: "values",
  device: "cpu",
  threads: 1,
  measurements: 3,
  stepStates: "stored",
  ...changes,
});

async function run(changes: Partial<DistillationSettings> = {}, look: (event: DistillEvent) => void = () => undefined) {
  const found = new Map<number, IndexerParameters>();
  for await (const event of distil(model, text, settings(changes))) {
    look(event);
    if (event.type === "trained") for (const [layer, tensors] of event.parameters) found.set(layer, tensors);
  }
  return found;
}

const bytes = (found: Map<number, IndexerParameters>) =>
  [...found].map(([layer, tensors]) => [
    layer,
    ...indexerTensors.map((name) => Buffer.from(Float32Array.from(tensors[name]).buffer).toString("base64")),
  ]);

describe("a distillation", () => {
  it("lowers the divergence of every trained layer, and what its selection misses", async () => {
    const first = new Map<number, number>();
    const last = new Map<number, number>();
    const long = { ...recipe, steps: 60, rate: 1e-2 };
    await run({ recipe: long }, (event) => {
      if (event.type !== "measured") return;
      for (const [layer, value] of event.measured.divergence) {
        if (event.measured.step === 0) first.set(layer, value);
        else last.set(layer, value);
      }
    });
    expect([...first.keys()]).toEqual([0, 2]);
    for (const [layer, value] of first) expect(last.get(layer)).toBeLessThan(0.8 * value);
  });

  it.each(stepStates)("gives the same bytes in memory, on disk, and cut at any moment; states %s", async (states) => {
    const changes = { stepStates: states, checkpointEvery: 2 };
    const whole = bytes(await run({ stepStates: states }));
    const path = join(folder, `whole-${states}`);
    const store = await DistillFolder.open(path, fingerprint, "create");
    expect(bytes(await run({ ...changes, store }))).toEqual(whole);
    await store.close();
    // Once in each group's training, between the groups, and right after the last step.
    for (const cut of states === "stored" ? [1, 3, 5, 6, 8, 11, 12] : [3, 6, 8]) {
      const place = join(folder, `cut-${states}-${cut}`);
      let steps = 0;
      const controller = new AbortController();
      const begun = await DistillFolder.open(place, fingerprint, "create");
      const cutRun = run({ ...changes, store: begun, signal: controller.signal }, (event) => {
        if (event.type === "step" && ++steps === cut) controller.abort();
      });
      if (cut < 12) await expect(cutRun).rejects.toThrow();
      else await cutRun;
      await begun.close();
      const again = await DistillFolder.open(place, fingerprint, "resume");
      expect(bytes(await run({ ...changes, store: again })), `cut after ${cut} steps`).toEqual(whole);
      await again.close();
    }
  });

  it("learns as much from states that are stored as from states that its steps compute", async () => {
    for (const chosen of [pattern, "any"] as const) {
      const learned = async (states: DistillationSettings["stepStates"]) => {
        const found = new Map<string, number>();
        const long = { ...recipe, steps: 40, rate: 1e-2 };
        await run({ pattern: chosen, recipe: long, measurements: 2, stepStates: states }, (event) => {
          if (event.type !== "measured") return;
          const { step, divergence } = event.measured;
          for (const [layer, value] of divergence) found.set(`${step === 0 ? "before" : "after"} ${layer}`, value);
        });
        return found;
      };
      const [stored, computed] = [await learned("stored"), await learned("computed")];
      expect([...computed.keys()]).toEqual([...stored.keys()]);
      // Stored states are rounded at every boundary, computed ones at the first.
      for (const [name, value] of stored) {
        expect(Math.abs((computed.get(name) ?? Number.NaN) - value) / value, `${chosen} ${name}`).toBeLessThan(0.08);
      }
    }
  });

  it.each(stepStates)(
    "gives the same bytes on several devices, and where they are stopped; states %s",
    async (states) => {
      const alone = bytes(await run({ stepStates: states })).sort();
      const groups: number[] = [];
      const look = (event: DistillEvent) => {
        if (event.type === "step") groups.push(event.group.full);
      };
      const devices = ["cpu", "cpu"] as const;
      expect(bytes(await run({ stepStates: states, devices }, look)).sort()).toEqual(alone);
      // Two groups at a time: the second does not wait for the first.
      expect(groups.indexOf(2)).toBeLessThan(groups.lastIndexOf(0));
      const place = join(folder, `devices-${states}`);
      const controller = new AbortController();
      const begun = await DistillFolder.open(place, fingerprint, "create");
      const stop = (event: DistillEvent) => {
        if (event.type === "step" && event.done.step === 3) controller.abort();
      };
      const changes = { stepStates: states, devices, checkpointEvery: 2 };
      await expect(run({ ...changes, store: begun, signal: controller.signal }, stop)).rejects.toThrow();
      await begun.close();
      const again = await DistillFolder.open(place, fingerprint, "resume");
      expect(bytes(await run({ ...changes, store: again })).sort()).toEqual(alone);
      await again.close();
    },
  );

  it("refuses a boundary or checkpoint that has changed, and another run's journal", async () => {
    const place = join(folder, "changed");
    const controller = new AbortController();
    const store = await DistillFolder.open(place, fingerprint, "create");
    const stop = (event: DistillEvent) => {
      if (event.type === "step" && event.done.step === 3) controller.abort();
    };
    await expect(run({ store, checkpointEvery: 2, signal: controller.signal }, stop)).rejects.toThrow();
    await store.close();
    await expect(DistillFolder.open(place, { ...fingerprint, text_hash: "e" }, "resume")).rejects.toThrow(/text/);
    await expect(DistillFolder.open(place, fingerprint, "create")).rejects.toThrow(/exists|there/);
    const states = join(place, "boundary-0.bf16");
    const whole = await readFile(states);
    const broken = Buffer.from(whole);
    broken[100] = (broken[100] ?? 0) ^ 1;
    await writeFile(states, broken);
    const again = await DistillFolder.open(place, fingerprint, "resume");
    await expect(run({ store: again })).rejects.toThrow(/boundary-0.bf16.* has changed/);
    await writeFile(states, whole);
    for (const slot of [0, 1]) {
      const saved = join(place, `group-0-checkpoint-${slot}.safetensors`);
      await writeFile(saved, Buffer.concat([await readFile(saved), Buffer.from("x")]));
    }
    await expect(run({ store: again })).rejects.toThrow(/checkpoint-.* has changed/);
    await again.close();
  });

  it("stops at a loss that is not finite and names the layer", async () => {
    const wild = { ...recipe, rate: 1e30, clip: 1e30, steps: 40 };
    await expect(run({ recipe: wild, measurements: 0 })).rejects.toThrow(/Step \d+ of layer 0: .* is not finite/);
  });
});

describe("a graph for any pattern", () => {
  const batch = 2;
  const queries = queriesAt(recipe, 1, length);
  const common = {
    device: "cpu",
    threads: 1,
    batch,
    length,
    queries: queries.length,
    weight: "values",
    states: "float32",
    stepStates: "stored",
  } as const;

  /** States that enter every layer. */
  async function allStates(): Promise<Map<number, Float32Array>> {
    const place = { device: "cpu", threads: 1, batch, length } as const;
    const embedding = await LayerStates.open(model, { from: 0, to: 0 }, place);
    const ids = text.training.slice(0, batch).flatMap((window) => [...window]);
    const embedded = await embedding.run(BigInt64Array.from(ids, BigInt));
    await embedding.release();
    const layers = await LayerStates.open(model, { from: 0, to: 4 }, place);
    const above = await layers.run(embedded.get(0) as Float32Array);
    await layers.release();
    return new Map([...embedded, ...above]);
  }

  it.each([false, true])("trains each group as its own graph does (sparse: %s)", async (sparse) => {
    const trained = [0, 1, 2, 3, 4];
    const parameters = await readIndexers(model, trained);
    const any = await GradientSession.open(
      model,
      { from: 0, to: 5 },
      { ...common, trained, targets: trained, anyPattern: true },
    );
    const together = await any.run({ hidden: await allStates(), queries, sparse, parameters, pattern });
    await any.release();
    expect([...together.keys()]).toEqual([0, 2]);
    for (const { full, layers } of layerGroups(pattern)) {
      const range = { from: full, to: full + layers.length };
      const alone = await GradientSession.open(model, range, {
        ...common,
        trained: [full],
        targets: layers,
        anyPattern: false,
      });
      const own = new Map([[full, parameters.get(full) as IndexerParameters]]);
      const found = (await alone.run({ hidden: await allStates(), queries, sparse, parameters: own })).get(full);
      await alone.release();
      expect(together.get(full)?.loss).toBeCloseTo(found?.loss ?? Number.NaN, 6);
      for (const name of indexerTensors) {
        const left = together.get(full)?.gradients[name] as Float32Array;
        const right = found?.gradients[name] as Float32Array;
        const apart = Math.hypot(...left.map((value, i) => value - (right[i] as number)));
        expect(apart / Math.hypot(...right), name).toBeLessThan(1e-4);
      }
    }
  });

  it("has the gradient of the mean of KLs to each served layer (paper, proposition of section 3)", async () => {
    const states = await allStates();
    const parameters = await readIndexers(model, [0]);
    const gradient = async (targets: number[]) => {
      const range = { from: 0, to: Math.max(...targets) + 1 };
      const session = await GradientSession.open(model, range, {
        ...common,
        trained: [0],
        targets,
        anyPattern: false,
      });
      const found = await session.run({ hidden: states, queries, sparse: false, parameters });
      await session.release();
      return found.get(0)?.gradients as IndexerParameters;
    };
    const centroid = await gradient([0, 1, 2]);
    const each = [await gradient([0]), await gradient([1]), await gradient([2])];
    for (const name of indexerTensors) {
      const mean = centroid[name].map((_, i) => each.reduce((sum, one) => sum + (one[name][i] as number), 0) / 3);
      const apart = Math.hypot(...mean.map((value, i) => value - (centroid[name][i] as number)));
      expect(apart / Math.hypot(...centroid[name]), name).toBeLessThan(1e-4);
    }
  });

  it("agrees with finite differences", async () => {
    const states = await allStates();
    const parameters = await readIndexers(model, [0]);
    const session = await GradientSession.open(
      model,
      { from: 0, to: 2 },
      { ...common, trained: [0], targets: [0, 1], anyPattern: false },
    );
    const lossAt = async (moved: IndexerParameters) =>
      (await session.run({ hidden: states, queries, sparse: false, parameters: new Map([[0, moved]]) })).get(0);
    const own = parameters.get(0) as IndexerParameters;
    const found = (await lossAt(own))?.gradients as IndexerParameters;
    for (const name of indexerTensors) {
      // Along the gradient: single elements would drown in the rounding of float32.
      const size = Math.hypot(...found[name]);
      const step = 1e-2 / size;
      const moved = (by: number) => ({
        ...own,
        [name]: own[name].map((v, i) => v + (by * (found[name][i] as number)) / size),
      });
      const ahead = (await lossAt(moved(step * size * 0.5)))?.loss ?? 0;
      const back = (await lossAt(moved(-step * size * 0.5)))?.loss ?? 0;
      expect((ahead - back) / (step * size) / size, name).toBeCloseTo(1, 1);
    }
    await session.release();
  });
});

describe("a recipe", () => {
  it("rises, falls, and never asks for a position beyond the sequence", () => {
    const steps = { ...defaultRecipe, seed: 0 };
    expect(rateAt(steps, 0)).toBeLessThan(rateAt(steps, 19));
    expect(rateAt(steps, 399)).toBeLessThan(1e-4);
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 300 }), fc.nat(1000), (tokens, step) => {
        const queries = queriesAt(steps, step, tokens);
        expect(queries).toHaveLength(Math.floor(tokens / 4));
        expect(Math.max(...queries)).toBeLessThan(tokens);
      }),
    );
  });

  it("draws patterns that begin with F and train what has an indexer", () => {
    const trainable = parsePattern("FFSFFFFFFFFF");
    fc.assert(
      fc.property(fc.nat(5000), fc.nat(100), (step, seed) => {
        const drawn = patternAt(trainable, step, seed);
        expect(drawn).toMatch(/^F[FS]{11}$/);
        expect(drawn[2]).toBe("S");
        expect([...drawn].filter((letter) => letter === "F").length).toBeLessThanOrEqual(7);
      }),
    );
  });
});
