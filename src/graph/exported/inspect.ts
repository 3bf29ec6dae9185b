/** What `indexcache inspect` says about a model: its shape, its weights, what it costs in memory, and whether it keeps the contract. */
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { InputError } from "../../base/errors.ts";
import { toolVersion } from "../../base/version.ts";
import { describeAdapter, findAdapter } from "../../checkpoint/adapter.ts";
import { bindWeights } from "../../checkpoint/bind-weights.ts";
import { elementsIn, OnnxType, weightTypes } from "../../checkpoint/dtype.ts";
import { openTensors, withOwnNames } from "../../checkpoint/shards.ts";
import { listWeights } from "../../checkpoint/weights.ts";
import { type DistilledManifest, readDistilledManifest } from "../../formats/distilled-manifest.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { buildFullModel } from "../frames/full-model.ts";
import { buildStage, stageNames } from "../frames/stages.ts";
import { encodeModel } from "../graph-builder.ts";
import { type ModelFolder, openModel, readGraph, requireHashes, weightSizes } from "../model-folder.ts";
import { type ModelProto, ModelProtoSchema } from "../onnx_pb.ts";
import { fullModelName, fullModelSpec, latentWidth, stageFolder, stageSpecs } from "./contract.ts";
import { checkGraph, externalTensors } from "./contract-check.ts";

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
  /** Where the indexers come from, where `distill` trained them. */
  distilled: DistilledManifest | undefined;
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
  /** Called for bytes that are read for it. */
  onBytes?: (bytes: number) => void;
  signal?: AbortSignal;
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
    leftoverIndexers: model.leftoverIndexers,
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
    distilled: await readDistilledManifest(path),
    notes: [...(adapter === undefined ? [] : [describeAdapter(adapter)]), ...model.notes],
  };
}

interface StoredWeight {
  dtype: string;
  elements: number;
  bytes: number;
}

/** The weights that the model's graphs read, each once, whatever kind of file holds them. */
async function storedWeights(model: ModelFolder): Promise<StoredWeight[]> {
  // A checkpoint has no graphs yet, and building those of a large one takes minutes.
  if (model.manifest === undefined) {
    const weights = listWeights(await model.weights());
    return weights.map(({ dtype, shape, length }) => ({ dtype, elements: elementsIn(shape), bytes: length }));
  }
  const found = new Map<string, StoredWeight>();
  for (const name of stageSpecs(model.config).keys()) {
    for (const tensor of externalTensors(fromBinary(ModelProtoSchema, await model.stage(name)).graph)) {
      const entry = Object.fromEntries(tensor.externalData.map(({ key, value }) => [key, value]));
      const dtype = dtypeNames.get(tensor.dataType) ?? "other";
      const elements = elementsIn(tensor.dims.map(Number));
      found.set(`${entry.location}:${entry.offset}`, { dtype, elements, bytes: Number(entry.length ?? 0) });
    }
  }
  return [...found.values()];
}

/** @throws InputError if a graph file is not what the tool writes */
async function requireOwnGraph({ path }: ModelFolder, name: string, graph: ModelProto): Promise<void> {
  if (Buffer.compare(encodeModel(graph), await readGraph(path, name)) === 0) return;
  throw new InputError(
    `"${join(path, name)}" is not the graph that this version of indexcache writes for these weights`,
    { hint: "its mathematics may be other ones: export the checkpoint again" },
  );
}

/**
 * Checks every graph of an exported folder. Where asked, also every file's hash, the names in the folder, and graphs of
 * this version of the tool against those that it writes for these weights.
 */
async function checkContract(model: ModelFolder, settings: InspectSettings): Promise<string> {
  const { manifest, config, path } = model;
  if (manifest === undefined) return "no exported folder: graphs are built from the checkpoint when they are needed";
  checkGraph(await readGraph(path, fullModelName), fullModelName, fullModelSpec(config), weightSizes(manifest));
  const stages = Object.keys(manifest.files).filter((name) => name.startsWith(`${stageFolder}/`));
  const kept = `version ${manifest.contract_version} kept by ${stages.length + 1} graphs`;
  if (settings.verify !== true) return kept;
  await requireHashes(path, manifest, Object.keys(manifest.files), { ...settings, afresh: true });
  const checked = `${kept}, every file has the manifest's hash`;
  if (manifest.tool.name !== "indexcache" || manifest.tool.version !== toolVersion) return checked;
  const weights = bindWeights(config, withOwnNames(await openTensors(path, manifest.weight_files)));
  for (const name of stageNames(config))
    await requireOwnGraph(model, `${stageFolder}/${name}.onnx`, buildStage(config, weights, name));
  await requireOwnGraph(model, fullModelName, buildFullModel(config, weights));
  return `${checked}, every graph is the one that this version writes`;
}
