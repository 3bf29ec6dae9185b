/**
 * Distils a model's indexers for a pattern, group by group: a group is a Full layer and the layers that read its selection.
 * The hidden states that enter the group's layers are made once, a layer in memory at a time; training then reads them batch
 * by batch and holds the attention of these layers alone, no MLP and no expert. For any pattern there is one group, the
 * whole model.
 */

import type { LayerRange } from "../graph/exported/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { TargetWeight } from "../graph/training/attention-target.ts";
import { layersFed, type StepStates } from "../graph/training/distill-graph.ts";
import { isFull, type Pattern, parsePattern } from "../pattern/pattern.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import type { IndexerParameters } from "../runtime/training/gradient-session.ts";
import { Boundaries, type BoundaryStore, type LayersTogether } from "./boundaries.ts";
import { trainGroup } from "./group-training.ts";
import type { Recipe } from "./recipe.ts";
import type { SavedTraining } from "./saved-training.ts";
import { sideBySide } from "./side-by-side.ts";
import { type LayerGroup, layerGroups, type StepDone } from "./training.ts";

export interface DistillationSettings {
  /** A pattern, or every pattern: a random one each step. */
  pattern: Pattern | "any";
  recipe: Recipe;
  weight: TargetWeight;
  device: ComputeDevice;
  /** Several devices, in the place of `device`: the states of all groups are made on the first, then each trains a group. */
  devices?: readonly ComputeDevice[];
  threads: number;
  stepStates: StepStates;
  /** How many held-out measurements a group gets, the one before its first step included. */
  measurements: number;
  /** Where states and progress are kept; absent: in memory, and gone with the process. */
  store?: DistillationStore | undefined;
  /** Steps between two checkpoints of a training, where there is a store. */
  checkpointEvery?: number;
  signal?: AbortSignal;
  /** Writes a profile of every node of a training step to `<prefix>_<time>.json`. */
  profilePrefix?: string;
  /** Hears of each batch of sequences that went through a layer. */
  onCarried?: (layer: number, sequences: number, total: number) => void;
}

/** Keeps what a run has done; a run that is taken up again asks it first. Groups go by their Full layer. */
export interface DistillationStore extends BoundaryStore {
  trained(group: number): Promise<{ parameters: Map<number, IndexerParameters>; step: number } | undefined>;
  saveTrained(group: number, saved: SavedTraining): Promise<void>;
  checkpoint(group: number): Promise<SavedTraining | undefined>;
  saveCheckpoint(group: number, saved: SavedTraining): Promise<void>;
  saveMeasured(group: number, measured: Measured): Promise<void>;
}

/** What held-out sequences say of the indexers of a group. */
export interface Measured {
  step: number;
  /** By layer: share of the attention that the selection misses. */
  missed: Map<number, number>;
  /** By layer: KL divergence over all visible keys, nats. */
  divergence: Map<number, number>;
}

export type DistillEvent =
  | { type: "group"; group: LayerGroup; index: number; groups: number }
  | { type: "step"; group: LayerGroup; done: StepDone }
  | { type: "measured"; group: LayerGroup; measured: Measured; best: boolean }
  /** The training made things worse and was ended; the indexers of step `kept` stay. */
  | { type: "diverged"; group: LayerGroup; step: number; rate: number; kept: number }
  | { type: "trained"; group: LayerGroup; parameters: Map<number, IndexerParameters>; step: number };

/** Token windows of one length. */
export interface DistillationText {
  training: readonly Int32Array[];
  heldOut: readonly Int32Array[];
}

/** A group's layers as one range of the model, and which of them are trained on which targets. */
export interface GroupWork {
  group: LayerGroup;
  range: LayerRange;
  trained: number[];
  targets: number[];
}

export async function* distil(
  model: ModelFolder,
  text: DistillationText,
  settings: DistillationSettings,
): AsyncGenerator<DistillEvent> {
  const { pattern, recipe, store, signal, threads, onCarried, stepStates, devices = [settings.device] } = settings;
  const device = devices[0] ?? settings.device;
  const work = planWork(model.config.indexerLayers, pattern, recipe.targets);
  const windows = [...text.training, ...text.heldOut];
  const together = layersTogether(model.config.indexerLayers, work, stepStates);
  const place = { device, threads, batch: recipe.batch, store, signal, onCarried, together };
  const boundaries = new Boundaries(model, windows, place);
  const train = async function* (index: number, on: ComputeDevice): AsyncGenerator<DistillEvent> {
    const item = work[index] as GroupWork;
    yield { type: "group", group: item.group, index, groups: work.length };
    const done = await store?.trained(item.group.full);
    if (done !== undefined) yield { type: "trained", group: item.group, ...done };
    else yield* trainGroup(model, text, boundaries, item, { ...settings, device: on });
  };
  try {
    if (devices.length > 1) {
      for (const { group, range, trained, targets } of work) {
        if ((await store?.trained(group.full)) !== undefined) continue;
        for (const layer of layersFed(range, { trained, targets }, stepStates)) await boundaries.at(layer);
      }
      const open = [...work.keys()];
      const take = async function* (on: ComputeDevice): AsyncGenerator<DistillEvent> {
        for (let index = open.shift(); index !== undefined; index = open.shift()) yield* train(index, on);
      };
      yield* sideBySide(devices.map(take));
      return;
    }
    for (const [index, item] of work.entries()) {
      signal?.throwIfAborted();
      const { to } = item.range;
      yield* train(index, device);
      const next = work[index + 1];
      if (next === undefined) break;
      if ((await store?.trained(next.group.full)) !== undefined) continue;
      // What is below is freed once the states that enter the next group are whole.
      await boundaries.at(to);
      await boundaries.drop(Array.from({ length: to }, (_, layer) => layer));
    }
  } finally {
    await boundaries.close();
  }
}

/**
 * Which layers states go through together: those that read one indexer's selection natively, where the states of every layer
 * are wanted, and whole groups where only those of each group's first are.
 */
export function layersTogether(
  indexerLayers: Pattern,
  work: readonly GroupWork[],
  stepStates: StepStates,
): LayersTogether {
  if (stepStates === "stored") return { starts: indexerLayers, inside: true };
  const starts = new Set(work.map(({ range }) => range.from));
  const letters = [...indexerLayers].map((_, layer) => (starts.has(layer) ? "F" : "S"));
  return { starts: parsePattern(letters.join("")), inside: false };
}

/** @param indexerLayers F where a layer has an indexer */
export function planWork(indexerLayers: Pattern, pattern: Pattern | "any", targets: Recipe["targets"]): GroupWork[] {
  const layers = [...indexerLayers].map((_, layer) => layer);
  if (pattern === "any") {
    const trained = layers.filter((layer) => isFull(indexerLayers, layer));
    return [{ group: { full: 0, layers }, range: { from: 0, to: layers.length }, trained, targets: layers }];
  }
  return layerGroups(pattern).map((group) => ({
    group,
    range: { from: group.full, to: group.full + group.layers.length },
    trained: [group.full],
    targets: targets === "own" ? [group.full] : group.layers,
  }));
}
