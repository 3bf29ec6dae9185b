/**
 * A checkpoint with a pattern applied: engines run it without flags. Its config.json says which layers share, the Shared
 * layers' indexer tensors are left out, and a card says where it comes from. What was left out comes back from the
 * original (`restore`).
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import {
  type DerivedFile,
  type DerivedReport,
  type DerivedSettings,
  type DerivedShard,
  type DerivedTensor,
  formatIndex,
  requireEmptyTarget,
  tensorBytes,
  writeDerivedCheckpoint,
} from "../checkpoint/derived-checkpoint.ts";
import { readSafetensorsHeader, type StoredTensor } from "../checkpoint/safetensors.ts";
import { readSafetensorsMetadata } from "../checkpoint/safetensors-metadata.ts";
import { type CheckpointTensors, openTensors } from "../checkpoint/shards.ts";
import { readText, readTextIfPresent } from "../formats/text-file.ts";
import { parseJson } from "../formats/validation.ts";
import { type Pattern, requireLayers } from "../pattern/pattern.ts";
import { formatCard, type Origin } from "./applied-card.ts";
import { patchConfig } from "./config-patch.ts";
import { nativeLetters } from "./derived-types.ts";
import { type IndexFields, indexerTypes } from "./index-fields.ts";
import { readServedModel, type ServedModel } from "./served-model.ts";

export interface AppliedSettings extends DerivedSettings {
  /** Folder of the checkpoint that indexers come back from, where `source` lacks some. */
  original?: string;
  /** What is known of the pattern: its losses, the search that found it. */
  origin: Origin;
}

export interface AppliedReport extends DerivedReport {
  pattern: Pattern;
  model: ServedModel;
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
 * @param pattern one letter for each backbone layer; where absent, the pattern of `settings.original`
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
  const wanted = requireLayers(pattern ?? original?.pattern ?? nothingToApply(source), model.layers, "the pattern");
  const tensors = await openTensors(source);
  requireIndexersSomewhere(source, tensors, model);
  const shared = sharedTensors(wanted);
  const restored = missingTensors(wanted, tensors, original?.tensors, source);
  const { shards, leftOut } = await planShards(tensors, shared, restored);
  const { files, notCopied } = await planFiles(source, tensors);
  const leftOutBytes = leftOut.reduce((sum, { length }) => sum + length, 0);
  const isOriginalPattern = original !== undefined && wanted === original.pattern;
  const card = formatCard({
    model,
    pattern: wanted,
    origin: { ...settings.origin, isOwn: isOriginalPattern },
    leftOut: { tensors: leftOut.length, bytes: leftOutBytes },
    restored: restored.length,
    previous: await readTextIfPresent(join(source, "README.md"), `"${join(source, "README.md")}"`),
  });
  const written: DerivedFile[] = [
    ...files,
    {
      name: "config.json",
      content: isOriginalPattern ? await restoredConfig(model, original.model) : await appliedConfig(model, wanted),
    },
    { name: "README.md", content: card },
    ...(await indexFile(source, tensors, shards)),
  ];
  const report = await writeDerivedCheckpoint(target, { shards, files: written }, settings);
  return {
    ...report,
    pattern: wanted,
    model,
    leftOutTensors: leftOut.length,
    leftOutBytes,
    restoredTensors: restored.length,
    notCopied,
  };
}

function nothingToApply(source: string): never {
  throw new InputError(`There is no pattern to apply to "${source}"`);
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
  const native = nativeLetters(original) ?? "F".repeat(original.layers);
  return { model: original, tensors, pattern: native as Pattern };
}

function requireIndexersSomewhere(source: string, { tensors }: CheckpointTensors, model: ServedModel): void {
  if ([...tensors.keys()].some((name) => indexerLayer(name) !== undefined)) return;
  throw new InputError(
    `"${source}" has no indexer that a pattern could leave out: no tensor is named model.layers.N.self_attn.indexer.*`,
    {
      hint: `of ${model.layers} layers each should have one; other layouts of a checkpoint have to be converted first`,
    },
  );
}

/** The backbone or prediction layer whose indexer this tensor belongs to; scales of quantized weights included. */
function indexerLayer(name: string): number | undefined {
  const layer = /^model\.layers\.(\d{1,6})\.self_attn\.indexer\./.exec(name)?.[1];
  return layer === undefined ? undefined : Number(layer);
}

function sharedTensors(pattern: Pattern): (name: string) => boolean {
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
): DerivedTensor[] {
  const owners = (all: CheckpointTensors["tensors"]): Set<number> =>
    new Set([...all.keys()].flatMap((name) => indexerLayer(name) ?? []));
  const own = owners(tensors);
  const lacking = [...pattern].flatMap((letter, layer) => (letter === "F" && !own.has(layer) ? [layer] : []));
  const [first] = lacking;
  if (first === undefined) return [];
  if (original === undefined) {
    throw new InputError(
      `"${source}" has no indexer at layer ${first}, which is F in the pattern (${lacking.length} such layers)`,
      { hint: "--restore ORIGINAL takes the missing indexers from the checkpoint that it was made from" },
    );
  }
  const there = owners(original.tensors);
  const nowhere = lacking.find((layer) => !there.has(layer));
  if (nowhere !== undefined) {
    throw new InputError(
      `"${original.folder}" has no indexer at layer ${nowhere} either: the model was trained without it`,
    );
  }
  const taken = [...original.tensors.values()].filter(({ name }) => lacking.includes(indexerLayer(name) ?? -1));
  return taken.map((tensor) => derived(join(original.folder, tensor.file), tensor));
}

function derived(path: string, { name, dtype, shape, offset, length }: StoredTensor): DerivedTensor {
  return { name, dtype, shape, data: { path, offset, length } };
}

/** Shards with a tensor to leave out are rewritten, those that consist of nothing else fall away, all others stay. */
async function planShards(
  { folder, files }: CheckpointTensors,
  isLeftOut: (name: string) => boolean,
  restored: readonly DerivedTensor[],
): Promise<{ shards: DerivedShard[]; leftOut: StoredTensor[] }> {
  const shards: DerivedShard[] = [];
  const leftOut: StoredTensor[] = [];
  for (const file of files) {
    const path = join(folder, file);
    const held = [...(await readSafetensorsHeader(path)).values()].sort((a, b) => a.offset - b.offset);
    const kept = held.filter(({ name }) => !isLeftOut(name));
    leftOut.push(...held.filter(({ name }) => isLeftOut(name)));
    if (kept.length === held.length) shards.push({ file, source: path });
    else if (kept.length > 0) {
      const metadata = await readSafetensorsMetadata(path);
      shards.push({ file, tensors: kept.map((tensor) => derived(path, tensor)), ...(metadata && { metadata }) });
    }
  }
  if (restored.length > 0) shards.push({ file: restoredName(files), tensors: restored, metadata: { format: "pt" } });
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
async function indexFile(
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
      elements += tensor.shape.reduce((product, size) => product * size, 1);
    }
  }
  places.sort(([left], [right]) => (left < right ? -1 : 1));
  const counted = "total_parameters" in metadata ? { total_parameters: elements } : {};
  return [{ name: INDEX, content: formatIndex(new Map(places), { ...metadata, ...counted, total_size: bytes }) }];
}

/** Every field that some engine reads: see docs/engines.md. */
async function appliedConfig(model: ServedModel, pattern: Pattern): Promise<string> {
  const fields: IndexFields = {
    use_index_cache: true,
    index_topk_pattern: pattern,
    indexer_types: indexerTypes(pattern),
  };
  return patchConfig(await configText(model), fields);
}

/** The source's config with what the original's says about sharing; the original's own text where nothing else differs. */
async function restoredConfig(model: ServedModel, original: ServedModel): Promise<string> {
  const [text, before] = await Promise.all([configText(model), configText(original)]);
  const fields = Object.fromEntries(Object.entries(original.fields).filter(([, value]) => value != null));
  const patched = patchConfig(text, fields, [], "use_index_cache" in fields ? [] : ["use_index_cache"]);
  const same = (left: string, right: string): boolean =>
    JSON.stringify(sorted(JSON.parse(left))) === JSON.stringify(sorted(JSON.parse(right)));
  return same(patched, before) ? before : patched;
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1)));
}

async function configText({ path = "" }: ServedModel): Promise<string> {
  return readText(path, `"${path}"`);
}
