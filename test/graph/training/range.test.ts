/** Frozen layers over whole sequences: what comes out does not depend on how the layers cut the rows. */
import { describe, expect, it } from "vitest";
import { encodeModel } from "../../../src/graph/graph-builder.ts";
import { openModel } from "../../../src/graph/model-folder.ts";
import { boundaryOutput, buildRangeGraph } from "../../../src/graph/training/range-graph.ts";
import { floats, loadRuntime, OnnxSession } from "../../../src/runtime/session/onnx-session.ts";
import { fromBfloat16, toBfloat16 } from "../../../src/runtime/training/boundary-states.ts";
import { LayerStates } from "../../../src/runtime/training/layer-states.ts";
import { fixturePath } from "../../oracle.ts";

const [batch, length] = [2, 24];

describe.each(["glm-groups", "v32-yarn"])("%s", (name) => {
  it("has the same states after layers that run in one chunk of rows and in several", async () => {
    const model = await openModel(fixturePath(name));
    const weights = await model.weights();
    const { Tensor } = await loadRuntime();
    const rows = batch * length;
    const width = model.config.hiddenSize;
    const hidden = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(1 + i * i));
    const positions = BigInt64Array.from({ length: rows }, (_, row) => BigInt(row % length));
    const statesOf = async (chunks: number) => {
      const shape = { batch, length, chunks, chunkRows: length / chunks };
      const graph = buildRangeGraph(model.config, weights, { from: 0, to: 2 }, [1, 2], shape, "cpu");
      const settings = { device: "cpu", threads: 1, folder: model.places.folder, solo: true } as const;
      const session = await OnnxSession.create(encodeModel(graph), "layers", settings);
      const found = await session.run({
        hidden_states: new Tensor("float32", hidden, [rows, width]),
        position_ids: new Tensor("int64", positions, [rows]),
      });
      const states = [1, 2].map((layer) => Array.from(floats(found[boundaryOutput(layer)], boundaryOutput(layer))));
      await session.release();
      return states.flat();
    };
    const whole = await statesOf(1);
    for (const chunks of [2, 3]) {
      const cut = await statesOf(chunks);
      const apart = Math.max(...cut.map((value, i) => Math.abs(value - (whole[i] as number))));
      expect(apart, `${chunks} chunks`).toBeLessThan(1e-4);
    }
  });

  it("takes the bits of bfloat16 for the numbers that they are", async () => {
    const model = await openModel(fixturePath(name));
    const hidden = Float32Array.from({ length: batch * length * model.config.hiddenSize }, (_, i) => Math.sin(i * i));
    const bits = toBfloat16(hidden);
    const statesOf = async (states: "float32" | "bfloat16", input: Float32Array | Uint16Array) => {
      const place = { device: "cpu", threads: 1, batch, length, states } as const;
      const layers = await LayerStates.open(model, { from: 0, to: 2 }, place);
      const found = await layers.run(input);
      await layers.release();
      return found;
    };
    expect(await statesOf("bfloat16", bits)).toEqual(await statesOf("float32", fromBfloat16(bits)));
  });
});
