/** Losses and gradients of indexers against PyTorch's autograd (tools/oracle/distill.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { indexerTensors } from "../../../src/graph/layer/lightning-indexer.ts";
import { type ModelFolder, openModel } from "../../../src/graph/model-folder.ts";
import { stepStates } from "../../../src/graph/training/distill-graph.ts";
import { GradientSession, type IndexerParameters } from "../../../src/runtime/training/gradient-session.ts";
import { LayerStates } from "../../../src/runtime/training/layer-states.ts";
import { fixturePath } from "../../oracle.ts";

const names = {
  wqB: "wq_b.weight",
  wk: "wk.weight",
  kNorm: "k_norm.weight",
  kNormBias: "k_norm.bias",
  weightsProj: "weights_proj.weight",
} as const;

const oracle = z.object({
  from: z.number(),
  to: z.number(),
  input_ids: z.array(z.array(z.number())),
  query_positions: z.array(z.number()),
  cases: z.array(
    z.object({
      stage: z.enum(["dense", "sparse"]),
      weight: z.enum(["values", "mass"]),
      loss: z.number(),
      gradients: z.record(z.string(), z.string()),
    }),
  ),
});

async function storedIndexer(model: ModelFolder, layer: number): Promise<IndexerParameters> {
  const { indexer } = (await model.weights()).layers[layer] ?? {};
  if (indexer === undefined) throw new Error(`layer ${layer} has no indexer`);
  const read = (tensor: keyof typeof names): Float32Array => {
    const { file, offset, length, dtype } = indexer[tensor];
    const bytes = Uint8Array.from(readFileSync(join(model.path, file)).subarray(offset, offset + length));
    if (dtype === "F32") return new Float32Array(bytes.buffer);
    return Float32Array.from(new Uint16Array(bytes.buffer), (half) => {
      const bits = new Uint32Array([half << 16]);
      return new Float32Array(bits.buffer)[0] as number;
    });
  };
  return Object.fromEntries(indexerTensors.map((tensor) => [tensor, read(tensor)])) as IndexerParameters;
}

/** States that enter every layer, of sequences of ids. */
async function allStates(model: ModelFolder, to: number, ids: number[][]): Promise<Map<number, Float32Array>> {
  const settings = { device: "cpu", threads: 1, batch: ids.length, length: ids[0]?.length ?? 0 } as const;
  const embedding = await LayerStates.open(model, { from: 0, to: 0 }, settings);
  const embedded = await embedding.run(BigInt64Array.from(ids.flat(), BigInt));
  await embedding.release();
  const layers = await LayerStates.open(model, { from: 0, to }, settings);
  const states = await layers.run(embedded.get(0) as Float32Array);
  await layers.release();
  return states;
}

describe.each(["glm-groups", "v32-yarn", "axk2-groups"])("%s", (name) => {
  const expected = oracle.parse(JSON.parse(readFileSync(join(fixturePath(name), "distill.json"), "utf8")));
  const ways = expected.cases.flatMap((found) => stepStates.map((states) => ({ ...found, states })));
  it.each(ways)("$stage targets by $weight, states $states: PyTorch's loss and gradients", async (found) => {
    const model = await openModel(fixturePath(name));
    const { from, to, input_ids: ids, query_positions: queries } = expected;
    const [batch, length] = [ids.length, ids[0]?.length ?? 0];
    const hidden = await allStates(model, to - 1, ids);
    const targets = Array.from({ length: to - from }, (_, index) => from + index);
    const session = await GradientSession.open(
      model,
      { from, to },
      {
        device: "cpu",
        threads: 1,
        states: "float32",
        stepStates: found.states,
        batch,
        length,
        queries: queries.length,
        weight: found.weight,
        trained: [from],
        targets,
        anyPattern: false,
      },
    );
    const parameters = new Map([[from, await storedIndexer(model, from)]]);
    const result = (await session.run({ hidden, queries, sparse: found.stage === "sparse", parameters })).get(from);
    await session.release();
    expect(result?.loss).toBeCloseTo(found.loss, 6);
    for (const tensor of indexerTensors) {
      const bytes = Buffer.from(found.gradients[names[tensor]] as string, "base64");
      const exact = new Float32Array(Uint8Array.from(bytes).buffer);
      const own = result?.gradients[tensor] as Float32Array;
      const norm = Math.hypot(...exact);
      expect(own.length, tensor).toBe(exact.length);
      expect(Math.hypot(...own.map((value, i) => value - (exact[i] as number))) / norm, tensor).toBeLessThan(1e-4);
    }
  });
});
