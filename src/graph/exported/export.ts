/**
 * Checkpoint to model folder. Weights are not rewritten: ONNX Runtime reads them out of the safetensors files, every byte
 * of which is hashed and every weight looked at once. Into a new folder the files are copied, by reference where the
 * file system can; into the checkpoint's own folder only the graphs are added. Links in the new folder are no way out:
 * ONNX Runtime refuses external data with a second hard link, and symbolic links, as an attack.
 */

import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, lstat, readdir, realpath, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { IndexCacheError, InputError, InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, makeFolder, systemErrorCode } from "../../base/files.ts";
import { formatBytes } from "../../base/quantities.ts";
import { hashFile, requireRegularFile } from "../../base/user-files.ts";
import { toolVersion } from "../../base/version.ts";
import { refuseAdapter } from "../../checkpoint/adapter.ts";
import { bindWeights } from "../../checkpoint/bind-weights.ts";
import { readModelConfig } from "../../checkpoint/config/config-json.ts";
import { type CheckpointTensors, indexName, openTensors, withOwnNames } from "../../checkpoint/shards.ts";
import { hashFiniteFiles } from "../../checkpoint/weight-findings.ts";
import { listWeights, type ModelWeights, tensorName } from "../../checkpoint/weights.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { buildFullModel } from "../frames/full-model.ts";
import { buildStage, stageNames } from "../frames/stages.ts";
import { encodeModel } from "../graph-builder.ts";
import { contractVersion, fullModelName, manifestName, stageFolder } from "./contract.ts";
import { encodeManifest, type Manifest, readManifest } from "./manifest.ts";

export interface ExportSettings {
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface ExportReport {
  target: string;
  architecture: string;
  layers: number;
  indexerLayers: Pattern;
  /** Bytes of weight files read and checked. */
  bytes: number;
  seconds: number;
  graphs: number;
  graphBytes: number;
  weightFiles: string[];
  /** The graphs were added to the checkpoint's own folder. */
  inPlace: boolean;
  /** Tensors that the model does not use, MTP layers for one. */
  unusedTensors: number;
}

/** Files of a Hugging Face folder that travel with the weights, where they are there. */
const companions = [
  "config.json",
  indexName,
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "LICENSE",
  "README.md",
];

/**
 * Exports `source` to the new folder `target`, all or nothing, or into `source` itself where both are the same folder.
 * @throws InputError for anything wrong with the checkpoint, NaN and infinite weights included
 * @throws RuntimeFailure if the folder cannot be written
 */
export async function exportModel(
  source: string,
  target: string,
  settings: ExportSettings = {},
): Promise<ExportReport> {
  const started = performance.now();
  if ((await readManifest(source)) !== undefined) {
    throw new InputError(`"${source}" is an exported model already`, { hint: "give the original checkpoint folder" });
  }
  await refuseAdapter(source);
  const config = await readModelConfig(source);
  const tensors = await openTensors(source);
  const inPlace = (await realpath(source)) === (await realpath(target).catch(() => resolve(target)));
  if (inPlace) await requireOwnFiles(source, tensors);
  else await requireNewFolder(target);
  const present = await presentCompanions(source);
  for (const name of present) await requireRegularFile(join(source, name), `"${join(source, name)}"`);
  // Graphs call weights as they will be called in the new folder, wherever the links of this one lead.
  const weights = bindWeights(config, withOwnNames(tensors));
  const used = new Set(listWeights(weights).map(({ name }) => tensorName(name)));
  const partial = join(dirname(resolve(target)), `.${basename(resolve(target))}.${randomUUID().slice(0, 8)}.partial`);
  try {
    await makeFolder(join(partial, stageFolder), { what: `Cannot write "${target}"` });
    const files: Manifest["files"] = {};
    if (!inPlace) await requireDiskSpace(source, partial, tensors);
    await readWeights(weights, files, settings);
    for (const name of present) files[name] = await describe(join(source, name));
    if (!inPlace) {
      for (const name of [...tensors.files, ...present]) {
        await copyFile(join(source, name), join(partial, name), constants.COPYFILE_FICLONE);
      }
    }
    const graphs = [
      ...stageNames(config).map((name) => ({
        file: `${stageFolder}/${name}.onnx`,
        build: () => buildStage(config, weights, name),
      })),
      { file: fullModelName, build: () => buildFullModel(config, weights) },
    ];
    for (const { file, build } of graphs) {
      await writeFile(join(partial, file), encodeModel(build()));
      files[file] = await describe(join(partial, file));
    }
    const manifest: Manifest = {
      contract_version: contractVersion,
      tool: { name: "indexcache", version: toolVersion },
      architecture: config.modelType,
      layers: config.numHiddenLayers,
      index_topk: config.indexTopk,
      indexer_layers: config.indexerLayers,
      weight_files: tensors.files,
      files,
    };
    await writeFile(join(partial, manifestName), encodeManifest(manifest));
    if (inPlace) await moveInto(source, partial);
    else await rename(partial, target);
    return {
      target,
      architecture: config.modelType,
      layers: config.numHiddenLayers,
      indexerLayers: config.indexerLayers,
      bytes: tensors.bytes,
      seconds: (performance.now() - started) / 1000,
      graphs: graphs.length,
      graphBytes: graphs.reduce((total, { file }) => total + (files[file]?.bytes ?? 0), 0),
      weightFiles: tensors.files,
      inPlace,
      unusedTensors: [...tensors.tensors.keys()].filter((name) => !used.has(name)).length,
    };
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    const code = systemErrorCode(error);
    if (error instanceof IndexCacheError || code === undefined) throw error;
    throw new RuntimeFailure(`Cannot write "${target}": ${describeSystemError(code)}`, { cause: error });
  }
}

async function requireNewFolder(target: string): Promise<void> {
  const entries = await readdir(target).catch((error: unknown) => {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw new InputError(`Cannot export to "${target}": ${describeSystemError(systemErrorCode(error) ?? "unknown")}`);
  });
  if (entries.length > 0) {
    throw new InputError(`Cannot export to "${target}": the folder is not empty`, { hint: "name a new folder" });
  }
}

/**
 * Graphs beside links, or beside files with a second name, could not be loaded: no ONNX Runtime reads weights through them.
 * A snapshot of the Hugging Face cache is not a place to add files to, either.
 */
async function requireOwnFiles(folder: string, { files, places }: CheckpointTensors): Promise<void> {
  const hint = "give a new folder as -o: the weights are copied there";
  for (const name of [...files, ...(await presentCompanions(folder))]) {
    if ((await lstat(join(folder, name))).isSymbolicLink()) {
      throw new InputError(`Cannot export into "${folder}": its ${name} is a symbolic link`, { hint });
    }
    if ((places.files.get(name)?.hardLinks ?? 1) > 1) {
      throw new InputError(
        `Cannot export into "${folder}": its ${name} has a second hard link, and ONNX Runtime refuses to read weights from such a file`,
        { hint },
      );
    }
  }
}

async function presentCompanions(source: string): Promise<string[]> {
  const entries = new Set(await readdir(source));
  return companions.filter((name) => entries.has(name));
}

/**
 * @param partial a folder of the file system that will hold the copies
 * @throws RuntimeFailure if it has no room for them and cannot copy by reference
 */
async function requireDiskSpace(source: string, partial: string, { files, bytes }: CheckpointTensors): Promise<void> {
  const { bavail, bsize } = await statfs(partial);
  const free = bavail * bsize;
  if (bytes <= free) return;
  const probe = join(partial, "probe");
  const byReference = await copyFile(join(source, files[0] as string), probe, constants.COPYFILE_FICLONE_FORCE).then(
    () => true,
    () => false,
  );
  await rm(probe, { force: true });
  if (byReference) return;
  throw new RuntimeFailure(
    `A copy of the weights takes ${formatBytes(bytes)}, and the disk of "${dirname(partial)}" has ${formatBytes(free)} free`,
    {
      hint: "name a folder on another disk, or the checkpoint's own folder: there only graphs are added, and nothing is copied. No command needs an export",
    },
  );
}

/** Adds the finished graphs to a checkpoint's folder; the manifest comes last, it makes the folder an exported one. */
async function moveInto(folder: string, partial: string): Promise<void> {
  await rm(join(folder, stageFolder), { recursive: true, force: true });
  for (const name of [stageFolder, fullModelName, manifestName]) await rename(join(partial, name), join(folder, name));
  await rm(partial, { recursive: true, force: true });
}

async function readWeights(weights: ModelWeights, files: Manifest["files"], settings: ExportSettings): Promise<void> {
  let done = 0;
  const onBytes = (bytes: number): void => {
    if (settings.signal?.aborted) throw new InterruptedError("Interrupted: nothing was written");
    done += bytes;
    settings.onProgress?.(done, weights.bytes);
  };
  const hashes = await hashFiniteFiles(weights, weights.files, { onBytes, afresh: true });
  for (const [index, name] of weights.files.entries()) {
    files[name] = { bytes: (await stat(join(weights.folder, name))).size, sha256: hashes[index] as string };
  }
}

async function describe(path: string): Promise<Manifest["files"][string]> {
  return { bytes: (await stat(path)).size, sha256: await hashFile(path) };
}
