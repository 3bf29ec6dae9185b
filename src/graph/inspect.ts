/** What `indexcache inspect` tells of a model: its shape, its weights, what it costs in memory, and whether it keeps the contract. */
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { hashFile } from "../base/user-files.ts";
import { describeAdapter, findAdapter } from "../checkpoint/adapter.ts";
import { OnnxType, weightTypes } from "../checkpoint/dtype.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { fullModelName, fullModelSpec, latentWidth, stageFolder, stageSpecs } from "./contract.ts";
import { breaks, checkGraph, externalTensors } from "./contract-check.ts";
import { type ModelFolder, openModel, readGraph, weightSizes } from "./model-folder.ts";
import { ModelProtoSchema } from "./onnx_pb.ts";

export interface Inspection {
  name: string;
  architecture: string;
  /** An exported folder, or a checkpoint whose graphs are built on the fly. */
  kind: "exported model" | "checkpoint";
  layers: number;
  /** The model's own pattern: F where the layer runs an indexer. */
  indexerLayers: Pattern;
  /** Layers whose indexer is in the checkpoint and not in the model: config.json makes them Shared. */
  leftoverIndexers: number[];
  indexTopk: number;
  indexer: { heads: number; headDim: number };
  attention: { heads: number; latentWidth: number };
  experts: { routed: number; perToken: number; shared: number; sparseLayers: number };
  hiddenSize: number;
  vocabSize: number;
  maxPositionEmbeddings: number;
  parameters: number;
  /** Bytes on disk by dtype. */
  weightBytes: Record<string, number>;
  /** Bytes in memory once loaded for CPU (fp32). */
  loadedBytes: number;
  /** Bytes of caches for each token, with every indexer and with none but the first. */
  cacheBytesPerToken: { full: number; shared: number };
  contract: string;
  /** What was read otherwise than the checkpoint says, or not at all. */
  notes: string[];
}

/** What people call the types that weights and their scales are stored in. */
const dtypeNames = new Map<number, string>([
  ...Object.entries(weightTypes).map(([name, type]): [number, string] => [type, name]),
  [OnnxType.uint8, "F8_E8M0"],
]);

export interface InspectSettings {
  /** Compare the hash of every file with the manifest: reads the whole model. */
  verify?: boolean;
}

/** @throws InputError naming the rule where the folder breaks the contract */
export async function inspectModel(path: string, settings: InspectSettings = {}): Promise<Inspection> {
  const model = await openModel(path, { withAdapter: true });
  const adapter = await findAdapter(path);
  const { config } = model;
  const weightBytes: Record<string, number> = {};
  let parameters = 0;
  for (const { dtype, elements, bytes } of await storedWeights(model)) {
    weightBytes[dtype] = (weightBytes[dtype] ?? 0) + bytes;
    parameters += elements;
  }
  const perLayer = 4 * latentWidth(config) * config.numHiddenLayers;
  const perIndexer = 4 * config.indexHeadDim;
  return {
    name: config.name,
    architecture: config.modelType,
    kind: model.manifest === undefined ? "checkpoint" : "exported model",
    layers: config.numHiddenLayers,
    indexerLayers: config.indexerLayers,
    leftoverIndexers: (await model.weights()).leftoverIndexers,
    indexTopk: config.indexTopk,
    indexer: { heads: config.indexNHeads, headDim: config.indexHeadDim },
    attention: { heads: config.numAttentionHeads, latentWidth: latentWidth(config) },
    experts: {
      routed: config.nRoutedExperts,
      perToken: config.numExpertsPerTok,
      shared: config.nSharedExperts,
      sparseLayers: config.sparseLayers.filter(Boolean).length,
    },
    hiddenSize: config.hiddenSize,
    vocabSize: config.vocabSize,
    maxPositionEmbeddings: config.maxPositionEmbeddings,
    parameters,
    weightBytes,
    loadedBytes: 4 * parameters,
    cacheBytesPerToken: {
      full: perLayer + perIndexer * fullLayers(config.indexerLayers).length,
      shared: perLayer + perIndexer,
    },
    contract: await checkContract(model, settings),
    notes: [...(adapter === undefined ? [] : [describeAdapter(adapter)]), ...model.notes],
  };
}

/** The weights that the model's graphs read, each once, whatever kind of file holds them. */
async function storedWeights(model: ModelFolder): Promise<{ dtype: string; elements: number; bytes: number }[]> {
  const found = new Map<string, { dtype: string; elements: number; bytes: number }>();
  for (const name of stageSpecs(model.config).keys()) {
    for (const tensor of externalTensors(fromBinary(ModelProtoSchema, await model.stage(name)).graph)) {
      const elements = Number(tensor.dims.reduce((product, size) => product * size, 1n));
      const entry = Object.fromEntries(tensor.externalData.map(({ key, value }) => [key, value]));
      const dtype = dtypeNames.get(tensor.dataType) ?? "other";
      found.set(`${entry.location}:${entry.offset}`, { dtype, elements, bytes: Number(entry.length ?? 0) });
    }
  }
  return [...found.values()];
}

/** Checks every graph of an exported folder, and every hash where asked. */
async function checkContract(model: ModelFolder, settings: InspectSettings): Promise<string> {
  const { manifest, config, path } = model;
  if (manifest === undefined) return "no exported folder: graphs are built from the checkpoint when they are needed";
  checkGraph(await readGraph(path, fullModelName), fullModelName, fullModelSpec(config), weightSizes(manifest));
  if (settings.verify === true) {
    for (const [name, { sha256 }] of Object.entries(manifest.files)) {
      if ((await hashFile(join(path, name))) !== sha256) {
        throw breaks("C2", `"${join(path, name)}" was changed: its SHA-256 is not the manifest's`);
      }
    }
  }
  const graphs = Object.keys(manifest.files).filter((name) => name.startsWith(`${stageFolder}/`)).length + 1;
  const hashes = settings.verify === true ? ", every file has the manifest's hash" : "";
  return `version ${manifest.contract_version} kept by ${graphs} graphs${hashes}`;
}
