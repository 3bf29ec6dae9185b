/** Resident caches: CUDA alone can run them, but what would break them can be seen in the graph. */
import { describe, expect, it } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { cacheBlock } from "../../src/graph/frames/generation-caches.ts";
import { buildGenerationGraph, farKeys, waysOf } from "../../src/graph/frames/generation-graph.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import type { GraphProto, NodeProto } from "../../src/graph/onnx_pb.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { fixturePath } from "../oracle.ts";

/** A graph and the graphs inside it. */
function graphsOf(graph: GraphProto): GraphProto[] {
  const inner = graph.node.flatMap(({ attribute }) => attribute.flatMap(({ g }) => (g === undefined ? [] : [g])));
  return [graph, ...inner.flatMap(graphsOf)];
}

async function resident(pattern = "FSSF") {
  const { config, weights } = await openModel(fixturePath("glm-groups"));
  const full = { ...config, numHiddenLayers: pattern.length };
  const settings = {
    precision: OnnxType.float16,
    provider: "cuda",
    caches: "resident",
    capacity: Math.ceil(farKeys(config) / cacheBlock) * cacheBlock,
  } as const;
  const all = await weights();
  const some = { ...all, layers: all.layers.slice(0, pattern.length) };
  const model = buildGenerationGraph(full, some, parsePattern(pattern), settings);
  const graphs = graphsOf(model.graph as GraphProto);
  return {
    ways: waysOf(full, settings),
    outer: graphs[0] as GraphProto,
    nodes: graphs.flatMap(({ node }) => node),
    graphs,
  };
}

describe("resident caches", () => {
  it("are one for each layer's latents and each Full layer's keys, and begin unlike each other", async () => {
    const { outer, nodes, ways } = await resident();
    const writes = nodes.filter(({ opType }) => opType === "PagedAttention");
    const caches = new Set(writes.map(({ input }) => input[3] as string));
    expect(caches.size).toBe(4 + 2);
    // Every way writes every cache.
    expect(writes.length).toBe(caches.size * ways.length);
    // No two are alike: ONNX Runtime may take equal tensors for one.
    const states = outer.sparseInitializer.filter(({ values }) => caches.has(values?.name ?? ""));
    expect(new Set(states.map(({ values }) => String(values?.rawData))).size).toBe(caches.size);
  });

  it("are read behind the write alone, through views that cannot be folded", async () => {
    const { nodes, graphs } = await resident();
    const made = new Map(nodes.flatMap((node) => node.output.map((name) => [name, node] as const)));
    const constants = new Set(graphs.flatMap(({ initializer }) => initializer.map(({ name }) => name)));
    /** Every node that a value is made of. */
    const origins = (name: string, found = new Set<NodeProto>()): Set<NodeProto> => {
      const node = name === "" ? undefined : made.get(name);
      if (node === undefined || found.has(node)) return found;
      found.add(node);
      for (const input of node.input) origins(input, found);
      return found;
    };
    const writes = nodes.filter(({ opType }) => opType === "PagedAttention");
    const caches = new Set(writes.map(({ input }) => input[3] as string));
    const views = nodes.filter(({ opType, input }) => opType !== "PagedAttention" && caches.has(input[0] as string));
    expect(views.length).toBeGreaterThan(0);
    for (const view of views) {
      expect(["Reshape", "Slice"]).toContain(view.opType);
      const shape = view.input[view.opType === "Reshape" ? 1 : 2] as string;
      expect(constants.has(shape)).toBe(false);
      // ReshapeFusion takes a Concat apart, and one unknown dimension of it for -1.
      expect(made.get(shape)?.opType).not.toBe("Concat");
      const own = writes.filter((write) => write.input[3] === view.input[0]);
      expect(own.some((write) => origins(shape).has(write))).toBe(true);
    }
  });
});
