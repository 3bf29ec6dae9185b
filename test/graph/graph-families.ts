/** Every family of graphs, for models of several kinds: what is compared before and after a change of how they are written. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import { bindWeights, requiredTensors } from "../../src/checkpoint/bind-weights.ts";
import { parseModelConfig } from "../../src/checkpoint/config/config-json.ts";
import type { DsaConfig } from "../../src/checkpoint/config/model-config.ts";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import type { CheckpointTensor } from "../../src/checkpoint/shards.ts";
import type { LayerWeights, ModelWeights } from "../../src/checkpoint/weights.ts";
import { attentionProbe } from "../../src/graph/frames/attention-probe.ts";
import { buildFullModel } from "../../src/graph/frames/full-model.ts";
import { buildGenerationGraph } from "../../src/graph/frames/generation-graph.ts";
import { buildDivergenceStage } from "../../src/graph/frames/head.ts";
import { buildSequenceGraph } from "../../src/graph/frames/sequence-graph.ts";
import { buildStage, stageNames } from "../../src/graph/frames/stages.ts";
import { type ModelProto, ModelProtoSchema } from "../../src/graph/onnx_pb.ts";
import { buildDistillGraph } from "../../src/graph/training/distill-graph.ts";
import { buildRangeGraph } from "../../src/graph/training/range-graph.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";

export interface FamilyModel {
  name: string;
  config: DsaConfig;
  weights: ModelWeights;
}

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Released configs, with fewer layers and experts: all layers are alike. */
export const familyModels: FamilyModel[] = [
  familyModel("demo", "models/demo/config.json", {
    num_hidden_layers: 5,
    mlp_layer_types: null,
    indexer_types: null,
  }),
  familyModel("GLM-5", "tools/bench/configs/GLM-5/config.json", {
    num_hidden_layers: 5,
    n_routed_experts: 16,
    mlp_layer_types: null,
    indexer_types: ["full", "full", "shared", "shared", "full"],
    attention_bias: true,
  }),
  familyModel(
    "DeepSeek-V3.2",
    "tools/bench/configs/DeepSeek-V3.2/config.json",
    {
      num_hidden_layers: 5,
      n_routed_experts: 16,
      n_group: 4,
      topk_group: 2,
      num_experts_per_tok: 4,
      hidden_size: 512,
      intermediate_size: 512,
      num_attention_heads: 8,
      num_key_value_heads: 8,
      vocab_size: 1024,
    },
    "F8_E4M3",
  ),
];

function familyModel(name: string, path: string, changes: Record<string, unknown>, dtype = "BF16"): FamilyModel {
  const json = { ...JSON.parse(readFileSync(`${root}/${path}`, "utf8")), ...changes };
  const config = parseModelConfig(json, path, name);
  const tensors = new Map<string, CheckpointTensor>();
  let offset = 0;
  const add = (tensor: string, type: string, shape: number[]): void => {
    const length = shape.reduce((product, size) => product * size, 1) * ({ F8_E4M3: 1, BF16: 2 }[type] ?? 4);
    tensors.set(tensor, { name: tensor, dtype: type, shape, offset, length, file: "model", location: "model" });
    offset += length;
  };
  for (const { name: tensor, shape } of requiredTensors(config)) {
    const quantised = dtype === "F8_E4M3" && shape.length === 2 && tensor.endsWith("_proj.weight");
    add(tensor, quantised ? dtype : "BF16", shape);
    if (quantised)
      add(
        `${tensor}_scale_inv`,
        "F32",
        shape.map((size) => Math.ceil(size / 128)),
      );
  }
  const places = { folder: "", files: new Map() };
  const checkpoint = { folder: "", files: ["model"], bytes: offset, tensors, absent: new Map(), notes: [], places };
  return { name, config, weights: bindWeights(config, checkpoint) };
}

/** Name and graph of every family, made when it is asked for. */
export function* familyGraphs({ config, weights }: FamilyModel): Generator<[string, () => Promise<ModelProto>]> {
  const made = (graph: () => ModelProto | Promise<ModelProto>) => async () => await graph();
  const decoded = (bytes: Promise<Uint8Array> | Uint8Array) => async () => fromBinary(ModelProtoSchema, await bytes);
  for (const name of stageNames(config)) yield [`stage ${name}`, made(() => buildStage(config, weights, name))];
  yield ["stage divergence", made(() => buildDivergenceStage(config, weights, 20))];
  yield ["model.onnx", made(() => buildFullModel(config, weights))];
  const own = config.indexerLayers;
  for (const pattern of [own, parsePattern("FSSSS"), "SSSSS" as Pattern]) {
    yield [`pattern ${pattern}`, made(() => buildFullModel(config, weights, pattern))];
  }
  for (const layer of [0, 1]) {
    const probe = () => attentionProbe(config, weights.layers[layer] as LayerWeights, "probe");
    yield [`probe ${layer}`, async () => decoded(probe())()];
  }
  const long = 8 * config.indexTopk;
  const shapes = {
    "short batch": { batch: 2, length: config.indexTopk, chunks: 1, chunkRows: config.indexTopk },
    batch: { batch: 2, length: 2 * config.indexTopk, chunks: 4, chunkRows: config.indexTopk / 2 },
    long: { batch: 1, length: long, chunks: 8, chunkRows: config.indexTopk },
    "very long": { batch: 1, length: long, chunks: 16, chunkRows: config.indexTopk / 2 },
  };
  const kinds = [
    ["cpu", OnnxType.float],
    ["cuda", OnnxType.float],
    ["cuda", OnnxType.float16],
    ["webgpu", OnnxType.float],
  ] as const;
  for (const [provider, precision] of kinds) {
    const kind = `${provider} ${precision === OnnxType.float ? "float32" : "float16"}`;
    for (const [title, shape] of Object.entries(shapes)) {
      const settings = { provider, precision, boundaries: true };
      yield [`sequence ${kind} ${title}`, made(() => buildSequenceGraph(config, weights, shape, settings))];
    }
    const bare = { provider, precision, boundaries: false };
    yield [`sequence ${kind} once`, made(() => buildSequenceGraph(config, weights, shapes.batch, bare))];
    yield [`sequence ${kind} kl`, made(() => buildSequenceGraph(config, weights, shapes.batch, { ...bare, top: 20 }))];
    for (const caches of provider === "webgpu" ? [] : (["fed", "resident"] as const)) {
      for (const pattern of [own, "SSSSS" as Pattern]) {
        const settings = { provider, precision, caches, capacity: 64 * config.indexTopk };
        yield [
          `generation ${kind} ${caches} ${pattern}`,
          made(() => buildGenerationGraph(config, weights, pattern, settings)),
        ];
      }
    }
  }
  for (const provider of ["cpu", "cuda"] as const) {
    for (const [from, to] of [
      [0, 0],
      [0, 3],
      [2, 3],
    ] as const) {
      const boundaries = Array.from({ length: to - from }, (_, i) => from + i + 1);
      const range = () => buildRangeGraph(config, weights, { from, to }, boundaries, shapes.batch, provider);
      yield [`range ${provider} ${from} ${to}`, made(range)];
    }
    for (const anyPattern of [true, false]) {
      const trained = anyPattern ? [0, 1] : [1];
      const settings = {
        provider,
        states: "bfloat16",
        batch: 2,
        length: 1024,
        queries: 128,
        weight: "values",
      } as const;
      const some = { ...settings, frozen: undefined, trained, anyPattern, targets: [0, 1, 2] };
      const range = { from: 0, to: 3 };
      yield [`distill ${provider} ${anyPattern}`, made(() => buildDistillGraph(config, weights, range, some))];
    }
  }
}
