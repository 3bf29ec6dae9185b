/**
 * A model that can be run: either a folder that follows the contract (its graphs are files), or a plain Hugging Face
 * checkpoint, whose graphs are built when they are asked for. The rest of the tool does not see the difference.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../base/errors.ts";
import { hashBytes } from "../base/files.ts";
import { hashFile, readUserFile, readUserFileIfPresent } from "../base/user-files.ts";
import { refuseAdapter } from "../checkpoint/adapter.ts";
import { bindWeights } from "../checkpoint/bind-weights.ts";
import { readModelConfig } from "../checkpoint/config/config-json.ts";
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { unusedTensorNotes } from "../checkpoint/unused-tensors.ts";
import { type HashSettings, hashFiles, hashFiniteFiles } from "../checkpoint/weight-findings.ts";
import { locateWeights, type WeightPlaces } from "../checkpoint/weight-places.ts";
import type { ReadingSettings } from "../checkpoint/weight-readers.ts";
import type { ModelWeights } from "../checkpoint/weights.ts";
import {
  fullModelName,
  type GraphSpec,
  manifestName,
  type StageName,
  stageFolder,
  stageSpecs,
} from "./exported/contract.ts";
import { breaks, checkGraph, externalTensors } from "./exported/contract-check.ts";
import { type Manifest, readManifest } from "./exported/manifest.ts";
import { buildStage } from "./frames/stages.ts";
import { encodeModel } from "./graph-builder.ts";
import type { ModelProto } from "./onnx_pb.ts";

/** What a result says about the model that it was made with. */
export interface ModelIdentity {
  name: string;
  architecture: string;
  layers: number;
  indexTopk: number;
  /** SHA-256 of config.json. */
  configHash: string;
  /** SHA-256 over names and SHA-256 of the weight files; absent where weights are elsewhere. */
  weightHash?: string;
}

export interface IdentitySettings extends ReadingSettings {
  /** Whatever is read to be hashed is looked at as well, as `requireFiniteWeights` does. */
  checks?: boolean;
}

/** What is known of a model without its weights: enough for tokens and patterns. */
export interface ModelDescription {
  path: string;
  config: DsaConfig;
  /** What was read otherwise than the checkpoint says, or not at all, for people. */
  notes: readonly string[];
  /** Hashes weight files that no one has hashed before. */
  identity(settings?: IdentitySettings): Promise<ModelIdentity>;
}

export interface ModelFolder extends ModelDescription {
  /** Present where the folder was exported. */
  manifest: Manifest | undefined;
  /** Bytes of the weight files on disk. */
  weightBytes: number;
  /** Where the external data of graphs lie: in `path`, or where the links there lead. */
  places: WeightPlaces;
  /** The bytes of a stage graph. */
  stage(name: StageName): Promise<Uint8Array>;
  /** The checkpoint's own tensors, which sequence graphs are built from. */
  weights(): Promise<ModelWeights>;
  /** Layers that config.json makes Shared although the checkpoint holds an indexer for them. */
  leftoverIndexers: number[];
  identity(settings?: IdentitySettings): Promise<Required<ModelIdentity>>;
}

export interface OpenSettings {
  /** Open a folder with an adapter in it as well, which is not applied: only to look at it. */
  withAdapter?: boolean;
}

/**
 * Opens a folder of which only config.json (and the tokenizer's files) matter: a server has the weights.
 * @throws InputError for a config.json of no supported model
 */
export async function describeModel(path: string): Promise<ModelDescription> {
  const config = await readModelConfig(path);
  return { path, config, notes: config.notes, identity: () => identityOf(path, config) };
}

async function identityOf(path: string, config: DsaConfig): Promise<ModelIdentity> {
  return {
    name: config.name,
    architecture: config.modelType,
    layers: config.numHiddenLayers,
    indexTopk: config.indexTopk,
    configHash: hashBytes(await readUserFile(join(path, "config.json"), `"${join(path, "config.json")}"`)),
  };
}

/**
 * Opens MODEL.
 * @throws InputError for a folder that is neither a supported checkpoint nor a valid model folder
 */
export async function openModel(path: string, settings: OpenSettings = {}): Promise<ModelFolder> {
  if (settings.withAdapter !== true) await refuseAdapter(path);
  const manifest = await readManifest(path);
  if (manifest !== undefined) await requireFiles(path, manifest);
  const config = await readModelConfig(path);
  if (manifest === undefined) {
    const tensors = await openTensors(path);
    const weights = bindWeights(config, tensors);
    const stage = async (name: StageName) => encodeModel(buildStage(config, weights, name));
    const { places } = tensors;
    const identity = async ({
      checks = false,
      ...settings
    }: IdentitySettings = {}): Promise<Required<ModelIdentity>> => {
      const files = tensors.files.toSorted();
      const hashes = checks
        ? await hashFiniteFiles(weights, files, settings)
        : await hashFiles(
            files.map((file) => join(path, file)),
            settings,
          );
      return { ...(await identityOf(path, config)), weightHash: weightHash(files, hashes) };
    };
    const notes = [...config.notes, ...tensors.notes, ...unusedTensorNotes(config, tensors, weights)];
    return {
      path,
      config,
      manifest,
      weightBytes: weights.bytes,
      places,
      notes,
      stage,
      weights: async () => weights,
      leftoverIndexers: weights.leftoverIndexers,
      identity,
    };
  }
  requireAgreement(path, config, manifest);
  const specs = stageSpecs(config);
  requireListed(path, manifest, [...specs.keys()]);
  const sizes = weightSizes(manifest);
  const places = await locateWeights(path, manifest.weight_files);
  const stage = async (name: StageName) => {
    const file = `${stageFolder}/${name}.onnx`;
    const bytes = await readGraph(path, file);
    const graph = checkGraph(bytes, file, specs.get(name) as GraphSpec, sizes);
    return relocate(graph, places) ? encodeModel(graph) : bytes;
  };
  const weightBytes = [...sizes.values()].reduce((total, bytes) => total + bytes, 0);
  let bound: Promise<ModelWeights> | undefined;
  const weights = () => {
    bound ??= openTensors(path, manifest.weight_files).then((tensors) => bindWeights(config, tensors));
    return bound;
  };
  const identity = async (): Promise<Required<ModelIdentity>> => {
    const files = manifest.weight_files.toSorted();
    const hashes = files.map((file) => manifest.files[file]?.sha256 ?? "");
    return { ...(await identityOf(path, config)), weightHash: weightHash(files, hashes) };
  };
  const { notes } = config;
  return { path, config, manifest, weightBytes, places, notes, stage, weights, leftoverIndexers: [], identity };
}

/**
 * Compares the weights of an exported folder with its manifest: each file is read once, and then known by its size, inode
 * and times.
 * @throws InputError for a file that is not the one that was exported
 */
export async function verifyWeights({ path, manifest }: ModelFolder, settings: ReadingSettings = {}): Promise<void> {
  if (manifest !== undefined) await requireHashes(path, manifest, manifest.weight_files, settings);
}

/**
 * Compares files with the manifest.
 * @throws InputError for the first that is another one
 */
export async function requireHashes(
  path: string,
  { files }: Manifest,
  names: readonly string[],
  settings: HashSettings,
): Promise<void> {
  const paths = names.map((name) => join(path, name));
  await hashFiles(paths, settings, (index, sha256) => {
    const name = names[index] as string;
    requireHash(path, name, files[name]?.sha256, sha256);
  });
}

/** @throws InputError where the hash of a file is not the manifest's */
function requireHash(path: string, name: string, stated: string | undefined, found: string): void {
  if (found === stated) return;
  throw new InputError(`"${join(path, name)}" was changed: its SHA-256 is not the one in ${manifestName}`, {
    hint: "what was measured is not what is there now: export the checkpoint again",
  });
}

/** Calls the weight files of a graph by where they lie; says whether any of them lies elsewhere than in the folder. */
function relocate({ graph }: ModelProto, { files }: WeightPlaces): boolean {
  let moved = false;
  for (const { externalData } of externalTensors(graph)) {
    for (const entry of externalData) {
      const location = entry.key === "location" ? files.get(entry.value)?.location : undefined;
      if (location === undefined || location === entry.value) continue;
      entry.value = location;
      moved = true;
    }
  }
  return moved;
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

/** Compares manifest and config.json. */
function requireAgreement(path: string, config: DsaConfig, manifest: Manifest): void {
  const where = `"${join(path, manifestName)}"`;
  const pairs = [
    ["architecture", manifest.architecture, config.modelType],
    ["layers", manifest.layers, config.numHiddenLayers],
    ["index_topk", manifest.index_topk, config.indexTopk],
    ["indexer_layers", manifest.indexer_layers, config.indexerLayers],
  ] as const;
  for (const [field, stated, found] of pairs) {
    if (stated !== found) throw breaks("C3", `${where}: ${field} is ${stated}, config.json says ${found}`);
  }
}

/** What a manifest leaves out could be changed without anybody noticing. */
function requireListed(path: string, manifest: Manifest, stages: readonly StageName[]): void {
  const needed = ["config.json", fullModelName, ...stages.map((name) => `${stageFolder}/${name}.onnx`)];
  const missing = [...needed, ...manifest.weight_files].find((name) => !Object.hasOwn(manifest.files, name));
  if (missing !== undefined) throw breaks("C2", `"${join(path, manifestName)}": files does not list "${missing}"`);
}

/** Files that nothing is computed from. */
const papers = new Set(["LICENSE", "README.md"]);

/** Sizes of all files, and the hashes of those that are small: `verifyWeights` is for the others. */
async function requireFiles(path: string, manifest: Manifest): Promise<void> {
  const large = new Set(manifest.weight_files);
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const file = join(path, name);
    const found = await stat(file).catch(() => undefined);
    if (found === undefined) throw breaks("C2", `"${file}" is missing`);
    if (found.size !== bytes) throw breaks("C2", `"${file}" has ${found.size} bytes, ${manifestName} says ${bytes}`);
    if (!large.has(name) && !papers.has(name)) requireHash(path, name, sha256, await hashFile(file));
  }
}

/** SHA-256 over names and SHA-256 of the weight files. */
function weightHash(files: readonly string[], hashes: readonly string[]): string {
  return hashBytes(files.map((file, index) => `${file} ${hashes[index]}\n`).join(""));
}
