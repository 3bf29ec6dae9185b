/** The folder that a distillation writes: the checkpoint as it was, with the trained indexers in place of its own. */
import { InputError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import {
  type DerivedFile,
  type DerivedReport,
  type DerivedSettings,
  type ReplacedTensor,
  requireSpace,
  writeDerivedCheckpoint,
} from "../checkpoint/derived/derived-checkpoint.ts";
import { openTensors } from "../checkpoint/shards.ts";
import { type ModelWeights, tensorName } from "../checkpoint/weights.ts";
import { indexFile, planFiles, planShards, sharedTensors } from "../engines/applied/applied-checkpoint.ts";
import { indexerTensors } from "../graph/layer/lightning-indexer.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { IndexerParameters } from "../runtime/training/gradient-session.ts";
import { encodeFloats, encodeScaled, storableDtypes, storableScales } from "./stored-floats.ts";

export interface DistilledSettings extends DerivedSettings {
  /** Leaves out the indexers of this pattern's Shared layers. */
  dropShared?: Pattern;
}

export interface DistilledReport extends DerivedReport {
  /** Indexer tensors of Shared layers that were left out. */
  leftOutTensors: number;
}

/**
 * @param trained parameters by layer
 * @param files makes the small files of the new folder; they replace the source's files of the same names
 */
export async function writeDistilledCheckpoint(
  target: string,
  model: ModelFolder,
  trained: ReadonlyMap<number, IndexerParameters>,
  files: (leftOutTensors: number) => Promise<DerivedFile[]>,
  settings: DistilledSettings = {},
): Promise<DistilledReport> {
  const weights = await model.weights();
  const checkpoint = await openTensors(model.path, model.manifest?.weight_files);
  const replaced = encodeIndexers(weights, trained);
  const { dropShared } = settings;
  const isLeftOut = dropShared === undefined ? () => false : sharedTensors(dropShared);
  const { shards, leftOut } = await planShards(checkpoint, isLeftOut, [], undefined, replaced);
  const companions = await planFiles(model.path, checkpoint);
  const own = await files(leftOut.length);
  const index = await indexFile(model.path, checkpoint, shards);
  const named = new Set([...own, ...index].map(({ name }) => name));
  const kept = companions.files.filter(({ name }) => !named.has(name));
  const report = await writeDerivedCheckpoint(target, { shards, files: [...kept, ...index, ...own] }, settings);
  return { ...report, leftOutTensors: leftOut.length };
}

/**
 * Refuses a target whose disk has no room for the checkpoint, which a long training would meet at its end.
 * @param layers whose indexers will be trained
 * @param beside bytes of hidden states that will lie on that disk by then
 * @throws RuntimeFailure before anything is trained
 */
export async function requireRoomForResult(
  target: string,
  model: ModelFolder,
  layers: readonly number[],
  { placement, dropShared }: DistilledSettings,
  beside: number,
): Promise<void> {
  const weights = await model.weights();
  const checkpoint = await openTensors(model.path, model.manifest?.weight_files);
  const replaced = new Map<string, ReplacedTensor["data"]>();
  for (const layer of layers) {
    const indexer = weights.layers[layer]?.indexer;
    if (indexer === undefined) continue;
    for (const tensor of indexerTensors) {
      const { name, scale } = indexer[tensor];
      for (const one of scale === undefined ? [name] : [name, scale.weight.name]) replaced.set(one, () => []);
    }
  }
  const isLeftOut = dropShared === undefined ? () => false : sharedTensors(dropShared);
  const { shards } = await planShards(checkpoint, isLeftOut, [], undefined, replaced);
  await requireSpace(target, shards, placement, beside);
}

/**
 * Refuses a checkpoint whose indexers could not be written back.
 * @throws InputError before anything is trained
 */
export function requireStorable(weights: ModelWeights, layers: readonly number[]): void {
  for (const layer of layers) {
    const indexer = weights.layers[layer]?.indexer;
    if (indexer === undefined) continue;
    for (const tensor of indexerTensors) {
      const { name, dtype, scale } = indexer[tensor];
      const whole =
        tensorName(name) === name && (scale === undefined || tensorName(scale.weight.name) === scale.weight.name);
      const known = scale === undefined ? storableDtypes : [...storableScales];
      if (whole && known.includes(scale === undefined ? dtype : scale.weight.dtype)) continue;
      throw new InputError(
        `Tensor ${quoted(name)} cannot be written back once it is trained: it is stored as ${dtype}${scale === undefined ? "" : ` with scales of ${scale.weight.dtype}`}${whole ? "" : ", as a part of another tensor"}`,
        { hint: "distil the BF16 release of the model" },
      );
    }
  }
}

/** Data of the trained tensors and their scales, by name. */
function encodeIndexers(
  weights: ModelWeights,
  trained: ReadonlyMap<number, IndexerParameters>,
): Map<string, ReplacedTensor["data"]> {
  const replaced = new Map<string, ReplacedTensor["data"]>();
  for (const [layer, parameters] of trained) {
    const indexer = weights.layers[layer]?.indexer;
    if (indexer === undefined) throw new RangeError(`layer ${layer} has no indexer`);
    for (const tensor of indexerTensors) {
      const { name, dtype, shape, scale } = indexer[tensor];
      const values = parameters[tensor];
      if (scale === undefined) {
        replaced.set(name, () => [encodeFloats(values, dtype)]);
        continue;
      }
      const { weight, rows, columns } = scale;
      const encoded = encodeScaled(values, shape[1] ?? values.length, { rows, columns }, weight.dtype);
      replaced.set(name, () => [encoded.weights]);
      replaced.set(weight.name, () => [encoded.scales]);
    }
  }
  return replaced;
}
