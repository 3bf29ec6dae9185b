/**
 * A checkpoint with a pattern applied: engines run it without flags. Its config.json says which layers share, the Shared
 * layers' indexer tensors are left out, and a card says where it comes from. What was left out comes back from the
 * original (`restore`). On request the tensors of attention get the shape that engines' kernels take (`engineShape`).
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import {
  type DerivedFile,
  type DerivedReport,
  type DerivedSettings,
  type DerivedShard,
  type DerivedTensor,
  formatIndex,
  type ReplacedTensor,
  requireEmptyTarget,
  tensorBytes,
  writeDerivedCheckpoint,
} from "../../checkpoint/derived/derived-checkpoint.ts";
import { type EngineHeads, type EngineShape, planEngineShape } from "../../checkpoint/derived/engine-shape.ts";
import type { FileTensor } from "../../checkpoint/derived/spread-tensor.ts";
import { elementsIn } from "../../checkpoint/dtype.ts";
import { readSafetensorsHeader, type StoredTensor } from "../../checkpoint/safetensors.ts";
import { readSafetensorsMetadata } from "../../checkpoint/safetensors-metadata.ts";
import { type CheckpointTensors, openTensors } from "../../checkpoint/shards.ts";
import { readTextIfPresent } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import { type Pattern, requireLayers } from "../../pattern/pattern.ts";
import { nativeLetters } from "../derived-types.ts";
import { indexerLayer, indexerLayers, readServedModel, type ServedModel } from "../served-model.ts";
import { formatCard, type Origin } from "./applied-card.ts";
import { appliedConfig, readConfig, restoredConfig, withShape } from "./applied-config.ts";

export interface AppliedSettings extends DerivedSettings {
  /** Folder of the checkpoint that indexers come back from, where `source` lacks some. */
  original?: string;
  /** Pad attention and indexers to the shape of engines' kernels, with this many attention heads where a number is given. */
  engineShape?: { heads?: EngineHeads };
  /** What is known of the pattern: its losses, the search that found it. */
  origin: Origin;
}

export interface AppliedReport extends DerivedReport {
  pattern: Pattern;
  model: ServedModel;
  /** The shape that attention and indexers were padded to. */
  engineShape: EngineShape | undefined;
  /** Indexer tensors of Shared layers, which the new checkpoint does not have. */
  leftOutTensors: number;
  leftOutBytes: number;
  /** Indexer tensors that came back from the original. */
  restoredTensors: number;
  /** Entries of the source folder that did not travel: other weight formats, graphs, folders, hidden files. */
  notCopied: string[];
}

const INDEX = "model.safetensors.index.json";
/** What `export` leaves in a folder: the manifest of graphs of the model as it was. */
const EXPORT_MANIFEST = "indexcache.json";
const RESTORED = "model-restored-indexers";

/** Weights in other formats, and graphs: they hold the model as it was. */
const otherWeights = /\.(safetensors|bin|pt|pth|ckpt|gguf|h5|msgpack|onnx|onnx_data|data)$/i;

const indexSchema = z.object({ metadata: z.record(z.string(), z.unknown()).nullish() });

/**
 * Writes the checkpoint `target`: `source` with `pattern`.
 * @param pattern one letter for each backbone layer; where absent, the pattern of `settings.original`, and without one,
 *   where the shape changes, the model's own
 * @throws InputError for a pattern that the model cannot have, and before anything is written
 */
export async function applyPattern(
  source: string,
  pattern: Pattern | undefined,
  target: string,
  settings: AppliedSettings,
): Promise<AppliedReport> {
  await requireEmptyTarget(target);
  const model = await readServedModel(source);
  if (model.family !== "dsa") {
    throw new InputError(
      `"${source}": patterns of ${model.modelType} are not applied to checkpoints, its layers' indexers are named otherwise`,
    );
  }
  const original = settings.original === undefined ? undefined : await openOriginal(settings.original, model);
  const own = settings.engineShape === undefined ? nothingToApply : ownPattern;
  const wanted = requireLayers(pattern ?? original?.pattern ?? own(model), model.layers, "the pattern");
  const tensors = await openTensors(source);
  requireIndexersSomewhere(source, tensors, model);
  const shared = sharedTensors(wanted);
  const restored = missingTensors(wanted, tensors, original?.tensors, source);
  const shape =
    settings.engineShape === undefined
      ? undefined
      : planEngineShape(await readConfig(model), model.path ?? source, tensors, settings.engineShape.heads);
  const { shards, leftOut } = await planShards(tensors, shared, restored, shape);
  const { files, notCopied } = await planFiles(source, tensors);
  const leftOutBytes = leftOut.reduce((sum, { length }) => sum + length, 0);
  const isOriginalPattern = pattern === undefined || wanted === original?.pattern;
  const card = formatCard({
    model,
    pattern: wanted,
    origin: { ...settings.origin, isOwn: isOriginalPattern },
    leftOut: { tensors: leftOut.length, bytes: leftOutBytes },
    restored: restored.length,
    shape,
    previous: await readTextIfPresent(join(source, "README.md"), `"${join(source, "README.md")}"`),
  });
  const written: DerivedFile[] = [
    ...files,
    {
      name: "config.json",
      content: withShape(
        original !== undefined && isOriginalPattern
          ? await restoredConfig(model, original.model)
          : await appliedConfig(model, wanted),
        wanted,
        shape,
      ),
    },
    { name: "README.md", content: card },
    ...(await indexFile(source, tensors, shards)),
  ];
  const report = await writeDerivedCheckpoint(target, { shards, files: written }, settings);
  return {
    ...report,
    pattern: wanted,
    model,
    engineShape: shape,
    leftOutTensors: leftOut.length,
    leftOutBytes,
    restoredTensors: restored.length,
    notCopied,
  };
}

function nothingToApply({ name }: ServedModel): never {
  throw new InputError(`There is no pattern to apply to "${name}"`);
}

function ownPattern(model: ServedModel): Pattern {
  return (nativeLetters(model) ?? "F".repeat(model.layers)) as Pattern;
}

interface Original {
  model: ServedModel;
  tensors: CheckpointTensors;
  pattern: Pattern;
}

/** The checkpoint that indexers come back from: another copy of the same model. */
async function openOriginal(folder: string, model: ServedModel): Promise<Original> {
  const original = await readServedModel(folder);
  for (const field of ["modelType", "layers"] as const) {
    if (original[field] !== model[field]) {
      throw new InputError(
        `"${folder}" is not what "${model.name}" was made from: ${field === "layers" ? "it has" : "it is"} ${original[field]}${field === "layers" ? " layers" : ""}, not ${model[field]}`,
      );
    }
  }
  const tensors = await openTensors(folder);
  return { model: original, tensors, pattern: ownPattern(original) };
}

function requireIndexersSomewhere(source: string, { tensors }: CheckpointTensors, model: ServedModel): void {
  if (indexerLayers(tensors.keys()).size > 0) return;
  throw new InputError(
    `"${source}" has no indexer that a pattern could leave out: no tensor is named model.layers.N.self_attn.indexer.*`,
    {
      hint: `of ${model.layers} layers each should have one; other layouts of a checkpoint have to be converted first`,
    },
  );
}

/** Is a tensor part of the indexer of a Shared layer? */
export function sharedTensors(pattern: Pattern): (name: string) => boolean {
  return (name) => {
    const layer = indexerLayer(name);
    return layer !== undefined && pattern[layer] === "S";
  };
}

/** Tensors of the original for Full layers without an indexer in the source. */
function missingTensors(
  pattern: Pattern,
  { tensors }: CheckpointTensors,
  original: CheckpointTensors | undefined,
  source: string,
): FileTensor[] {
  const own = indexerLayers(tensors.keys());
  const lacking = [...pattern].flatMap((letter, layer) => (letter === "F" && !own.has(layer) ? [layer] : []));
  const [first] = lacking;
  if (first === undefined) return [];
  if (original === undefined) {
    throw new InputError(
      `"${source}" has no indexer at layer ${first}, which is F in the pattern (${lacking.length} such layers)`,
      { hint: "--restore ORIGINAL takes the missing indexers from the checkpoint that it was made from" },
    );
  }
  const there = indexerLayers(original.tensors.keys());
  const nowhere = lacking.find((layer) => !there.has(layer));
  if (nowhere !== undefined) {
    throw new InputError(
      `"${original.folder}" has no indexer at layer ${nowhere} either: the model was trained without it`,
    );
  }
  const taken = [...original.tensors.values()].filter(({ name }) => lacking.includes(indexerLayer(name) ?? -1));
  for (const { name, shape } of taken) requireShapeOfSource(name, shape, tensors, source, original.folder);
  return taken.map((tensor) => derived(join(original.folder, tensor.file), tensor));
}

/** One of the two may have been padded to the engines' shape: its indexers do not fit the other. */
function requireShapeOfSource(
  name: string,
  shape: readonly number[],
  tensors: CheckpointTensors["tensors"],
  source: string,
  original: string,
): void {
  const part = name.replace(/^model\.layers\.\d+\./, "");
  const own = [...tensors.values()].find((tensor) => tensor.name.replace(/^model\.layers\.\d+\./, "") === part);
  if (own === undefined || own.shape.join() === shape.join()) return;
  throw new InputError(
    `"${original}" is of another shape than "${source}": tensor "${name}" has [${shape.join(", ")}], "${own.name}" has [${own.shape.join(", ")}]`,
    { hint: "indexers come back from the checkpoint that MODEL was made from, in the shape that it has" },
  );
}

function derived(path: string, { name, dtype, shape, offset, length }: StoredTensor): FileTensor {
  return { name, dtype, shape, data: { path, offset, length } };
}

/**
 * Shards with a tensor to leave out or to reshape are rewritten, those with tensors to replace are copied and written over,
 * those left empty fall away, all others stay.
 * @param replaced new data of tensors, by name; dtype and shape stay
 */
export async function planShards(
  { folder, files }: CheckpointTensors,
  isShared: (name: string) => boolean,
  restored: readonly FileTensor[],
  shape: EngineShape | undefined,
  replaced: ReadonlyMap<string, ReplacedTensor["data"]> = new Map(),
): Promise<{ shards: DerivedShard[]; leftOut: StoredTensor[] }> {
  const shards: DerivedShard[] = [];
  const leftOut: StoredTensor[] = [];
  const spread = (tensor: FileTensor): DerivedTensor => shape?.spread(tensor) ?? tensor;
  for (const file of files) {
    const path = join(folder, file);
    const held = [...(await readSafetensorsHeader(path)).values()].sort((a, b) => a.offset - b.offset);
    leftOut.push(...held.filter(({ name }) => isShared(name)));
    const before = held
      .filter(({ name }) => !isShared(name) && shape?.isLeftOut(name) !== true)
      .map((tensor) => derived(path, tensor));
    const spreadOut = before.map(spread);
    const after = spreadOut.map((tensor) => ({ ...tensor, data: replaced.get(tensor.name) ?? tensor.data }));
    if (after.length === held.length && spreadOut.every((tensor, index) => tensor === before[index])) {
      const others = held.flatMap(({ name, offset, length }) => {
        const data = replaced.get(name);
        return data === undefined ? [] : [{ name, offset, length, data }];
      });
      shards.push({ file, source: path, ...(others.length === 0 ? {} : { replaced: others }) });
    } else if (after.length > 0) {
      const metadata = await readSafetensorsMetadata(path);
      shards.push({ file, tensors: after, ...(metadata && { metadata }) });
    }
  }
  if (restored.length > 0) {
    shards.push({ file: restoredName(files), tensors: restored.map(spread), metadata: { format: "pt" } });
  }
  return { shards, leftOut };
}

/** A name that no weight file of the checkpoint has; one that was restored before has some. */
function restoredName(files: readonly string[]): string {
  for (let number = 1; ; number++) {
    const name = number === 1 ? `${RESTORED}.safetensors` : `${RESTORED}-${number}.safetensors`;
    if (!files.includes(name)) return name;
  }
}

/** Files that describe the model travel with it; weights in other formats and graphs would be of another one. */
export async function planFiles(
  source: string,
  { files }: CheckpointTensors,
): Promise<{ files: DerivedFile[]; notCopied: string[] }> {
  const own = new Set([...files, INDEX, "config.json", "README.md"]);
  const travelling: DerivedFile[] = [];
  const notCopied: string[] = [];
  for (const name of (await readdir(source)).sort()) {
    if (own.has(name)) continue;
    const path = join(source, name);
    const found = await stat(path).catch(() => undefined);
    const travels =
      found?.isFile() === true && !name.startsWith(".") && !otherWeights.test(name) && name !== EXPORT_MANIFEST;
    if (travels) travelling.push({ name, source: path });
    else notCopied.push(name);
  }
  return { files: travelling, notCopied };
}

/** The index of several weight files; a single `model.safetensors` needs none. */
export async function indexFile(
  source: string,
  { folder, files }: CheckpointTensors,
  shards: readonly DerivedShard[],
): Promise<DerivedFile[]> {
  const path = join(source, INDEX);
  const text = await readTextIfPresent(path, `"${path}"`);
  if (text === undefined && files.length === 1 && shards.length === 1) return [];
  const metadata = { ...(text === undefined ? {} : parseJson(text, indexSchema, `"${path}"`).metadata) };
  const places: [string, string][] = [];
  let bytes = 0;
  let elements = 0;
  for (const shard of shards) {
    const held =
      "tensors" in shard ? shard.tensors : [...(await readSafetensorsHeader(join(folder, shard.file))).values()];
    for (const tensor of held) {
      places.push([tensor.name, shard.file]);
      bytes += tensorBytes(tensor);
      elements += elementsIn(tensor.shape);
    }
  }
  places.sort(([left], [right]) => (left < right ? -1 : 1));
  const counted = "total_parameters" in metadata ? { total_parameters: elements } : {};
  return [{ name: INDEX, content: formatIndex(new Map(places), { ...metadata, ...counted, total_size: bytes }) }];
}
