/**
 * A model that can be run: either a folder that follows the contract (its graphs are files), or a plain Hugging Face
 * checkpoint, whose graphs are built when they are asked for. The rest of the tool does not see the difference.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { hashBytes } from "../base/files.ts";
import { hashFile, readUserFile, readUserFileIfPresent } from "../base/user-files.ts";
import { type DsaConfig, readModelConfig } from "../checkpoint/model-config.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { bindWeights, indexerLayers, type ModelWeights } from "../checkpoint/weights.ts";
import { type Pattern, parsePattern, requireLayers } from "../pattern/pattern.ts";
import { type GraphSpec, manifestName, type StageName, stageFolder, stageSpecs } from "./contract.ts";
import { breaks, checkGraph } from "./contract-check.ts";
import { encodeModel } from "./graph-builder.ts";
import { type Manifest, readManifest } from "./manifest.ts";
import { buildStage } from "./stages.ts";

/** What a result says about the model that it was made with. */
export interface ModelIdentity {
  name: string;
  architecture: string;
  layers: number;
  indexTopk: number;
  /** SHA-256 of config.json. */
  configHash: string;
  /** SHA-256 over names and SHA-256 of the weight files. */
  weightHash: string;
}

export interface ModelFolder {
  path: string;
  config: DsaConfig;
  /** Present where the folder was exported. */
  manifest: Manifest | undefined;
  /** Bytes of the weight files on disk. */
  weightBytes: number;
  /** The bytes of a stage graph; its external data are files of `path`. */
  stage(name: StageName): Promise<Uint8Array>;
  /** The checkpoint's own tensors, which sequence graphs are built from. */
  weights(): Promise<ModelWeights>;
  identity(): Promise<ModelIdentity>;
}

/**
 * Opens MODEL.
 * @throws InputError for a folder that is neither a supported checkpoint nor a valid model folder
 */
export async function openModel(path: string): Promise<ModelFolder> {
  const read = await readModelConfig(path);
  const manifest = await readManifest(path);
  const identity = async (): Promise<ModelIdentity> => ({
    name: read.name,
    architecture: read.modelType,
    layers: read.numHiddenLayers,
    indexTopk: read.indexTopk,
    configHash: hashBytes(await readUserFile(join(path, "config.json"), `"${join(path, "config.json")}"`)),
    weightHash: await weightHash(path, manifest),
  });
  if (manifest !== undefined) {
    await requireFiles(path, manifest);
    const config = { ...read, indexerLayers: requireAgreement(path, read, manifest) };
    const specs = stageSpecs(config);
    const sizes = weightSizes(manifest);
    const stage = async (name: StageName) => {
      const bytes = await readGraph(path, `${stageFolder}/${name}.onnx`);
      checkGraph(bytes, `${stageFolder}/${name}.onnx`, specs.get(name) as GraphSpec, sizes);
      return bytes;
    };
    const weightBytes = [...sizes.values()].reduce((total, bytes) => total + bytes, 0);
    const weights = async () => bindWeights(config, await openTensors(path));
    return { path, config, manifest, weightBytes, stage, weights, identity };
  }
  const weights = bindWeights(read, await openTensors(path));
  const config = { ...read, indexerLayers: indexerLayers(weights) };
  const stage = async (name: StageName) => encodeModel(buildStage(config, weights, name));
  return { path, config, manifest, weightBytes: weights.bytes, stage, weights: async () => weights, identity };
}

/** A graph file of an exported folder. */
export async function readGraph(path: string, name: string): Promise<Uint8Array> {
  const graph = await readUserFileIfPresent(join(path, name), `graph "${join(path, name)}"`);
  if (graph === undefined) throw breaks("C4", `"${join(path, name)}" is missing`);
  return graph;
}

/** Sizes of the weight files, as the manifest states them. */
export function weightSizes(manifest: Manifest): Map<string, number> {
  return new Map(manifest.weight_files.map((file) => [file, manifest.files[file]?.bytes ?? 0]));
}

/** Compares manifest and config.json; gives the layers that own an indexer. */
function requireAgreement(path: string, config: DsaConfig, manifest: Manifest): Pattern {
  const where = `"${join(path, manifestName)}"`;
  const pairs = [
    ["architecture", manifest.architecture, config.modelType],
    ["layers", manifest.layers, config.numHiddenLayers],
    ["index_topk", manifest.index_topk, config.indexTopk],
  ] as const;
  for (const [field, stated, found] of pairs) {
    if (stated !== found) throw breaks("C3", `${where}: ${field} is ${stated}, config.json says ${found}`);
  }
  const field = `${where}: indexer_layers`;
  return requireLayers(parsePattern(manifest.indexer_layers, field), config.numHiddenLayers, field);
}

/** Sizes only: hashing terabytes at every start would cost more than most runs. `inspect --verify` compares hashes. */
async function requireFiles(path: string, manifest: Manifest): Promise<void> {
  for (const [name, { bytes }] of Object.entries(manifest.files)) {
    const found = await stat(join(path, name)).catch(() => undefined);
    if (found === undefined) throw breaks("C2", `"${join(path, name)}" is missing`);
    if (found.size !== bytes) {
      throw breaks("C2", `"${join(path, name)}" has ${found.size} bytes, ${manifestName} says ${bytes}`);
    }
  }
}

async function weightHash(path: string, manifest: Manifest | undefined): Promise<string> {
  const files = manifest?.weight_files ?? (await openTensors(path)).files;
  const lines: string[] = [];
  for (const file of [...files].sort()) {
    lines.push(`${file} ${manifest?.files[file]?.sha256 ?? (await hashFile(join(path, file)))}\n`);
  }
  return hashBytes(lines.join(""));
}
