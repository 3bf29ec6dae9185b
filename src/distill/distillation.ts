/**
 * Distils a model's indexers for a pattern, group by group: a group is a Full layer and the layers that read its selection.
 * Only the group's own layers are loaded: its states come from the boundary below, are trained against batch by batch, and
 * are carried to the boundary above. For any pattern there is one group, the whole model.
 */

import { InputError } from "../base/errors.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { TargetWeight } from "../graph/training/attention-target.ts";
import type { LayerRange } from "../graph/training/distill-graph.ts";
import { isFull, type Pattern } from "../pattern/pattern.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import { type BoundaryShape, type BoundaryStates, StatesInMemory } from "../runtime/training/boundary-states.ts";
import { GradientSession, type IndexerParameters } from "../runtime/training/gradient-session.ts";
import { LayerStates } from "../runtime/training/layer-states.ts";
import { readIndexers } from "../runtime/training/stored-indexers.ts";
import { queriesAt, type Recipe } from "./recipe.ts";
import type { Best, SavedTraining } from "./saved-training.ts";
import { IndexerTraining, type LayerGroup, layerGroups, type StepDone } from "./training.ts";

export interface DistillationSettings {
  /** A pattern, or every pattern: a random one each step. */
  pattern: Pattern | "any";
  recipe: Recipe;
  weight: TargetWeight;
  device: ComputeDevice;
  threads: number;
  /** How many held-out measurements a group gets, the one before its first step included. */
  measurements: number;
  /** Where states and progress are kept; absent: in memory, and gone with the process. */
  store?: DistillationStore;
  /** Steps between two checkpoints of a training, where there is a store. */
  checkpointEvery?: number;
  signal?: AbortSignal;
}

/** Keeps what a run has done; a run that is taken up again asks it first. Groups go by their Full layer. */
export interface DistillationStore {
  boundary(layer: number, shape: BoundaryShape): Promise<BoundaryStates | undefined>;
  newBoundary(layer: number, shape: BoundaryShape): Promise<BoundaryStates>;
  boundaryComplete(layer: number, states: BoundaryStates): Promise<void>;
  dropBoundary(layer: number): Promise<void>;
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
  | { type: "trained"; group: LayerGroup; parameters: Map<number, IndexerParameters>; step: number };

/** Token windows of one length. */
export interface DistillationText {
  training: readonly Int32Array[];
  heldOut: readonly Int32Array[];
}

/** A group's layers as one range of the model, and which of them are trained on which targets. */
interface Work {
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
  const { config } = model;
  const { pattern, recipe } = settings;
  const length = text.training[0]?.length ?? 0;
  const shape: BoundaryShape = {
    sequences: text.training.length + text.heldOut.length,
    length,
    hiddenSize: config.hiddenSize,
  };
  const work = planWork(config.indexerLayers, pattern, recipe.targets);
  const { store, signal } = settings;
  const boundary = async (layer: number, fill: (states: BoundaryStates) => Promise<void>): Promise<BoundaryStates> => {
    const kept = await store?.boundary(layer, shape);
    if (kept !== undefined) return kept;
    const states = (await store?.newBoundary(layer, shape)) ?? new StatesInMemory(shape);
    await fill(states);
    await store?.boundaryComplete(layer, states);
    return states;
  };
  const windows = [...text.training, ...text.heldOut];
  /** Only the states that enter layer 0 can be made from nothing but the text. */
  const first = async (layer: number, empty: BoundaryStates): Promise<void> => {
    if (layer === 0) return await embed(model, windows, empty, settings);
    throw new InputError(`The states that enter layer ${layer} are gone`, { hint: "start again with --fresh" });
  };
  let states: BoundaryStates | undefined;
  for (const [index, item] of work.entries()) {
    signal?.throwIfAborted();
    const { from } = item.range;
    const done = await store?.trained(item.group.full);
    const next = work[index + 1]?.range.from;
    yield { type: "group", group: item.group, index, groups: work.length };
    if (done === undefined) {
      states ??= await boundary(from, (empty) => first(from, empty));
      yield* trainGroup(model, text, states, item, settings);
    } else {
      yield { type: "trained", group: item.group, ...done };
    }
    if (next === undefined) break;
    const ahead = await store?.boundary(next, shape);
    if (ahead !== undefined || (await isTrained(store, work[index + 1]))) {
      await states?.close();
      states = ahead;
      continue;
    }
    const below: BoundaryStates = states ?? (await boundary(from, (empty) => first(from, empty)));
    states = await boundary(next, (empty) => carry(model, below, empty, item.range, settings));
    await below.close();
    await store?.dropBoundary(from);
  }
  await states?.close();
}

async function isTrained(store: DistillationStore | undefined, work: Work | undefined): Promise<boolean> {
  return work !== undefined && (await store?.trained(work.group.full)) !== undefined;
}

/** @param indexerLayers F where a layer has an indexer */
export function planWork(indexerLayers: Pattern, pattern: Pattern | "any", targets: Recipe["targets"]): Work[] {
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

async function* trainGroup(
  model: ModelFolder,
  text: DistillationText,
  states: BoundaryStates,
  { group, range, trained, targets }: Work,
  settings: DistillationSettings,
): AsyncGenerator<DistillEvent> {
  const { recipe, pattern } = settings;
  const { length } = states.shape;
  const anyPattern = pattern === "any";
  const last = anyPattern ? range.to : Math.max(...targets) + 1;
  const session = await GradientSession.open(
    model,
    { from: range.from, to: last },
    {
      device: settings.device,
      threads: settings.threads,
      batch: recipe.batch,
      length,
      queries: queriesAt(recipe, 0, length).length,
      weight: settings.weight,
      trained,
      targets,
      anyPattern,
    },
  );
  try {
    const trainable = anyPattern ? { trainable: model.config.indexerLayers } : {};
    const data = { sequences: text.training.length, length, ...trainable };
    const { store, signal, checkpointEvery = 25 } = settings;
    const saved = await store?.checkpoint(group.full);
    const parameters =
      (saved?.training.parameters as Map<number, IndexerParameters> | undefined) ??
      (await readIndexers(model, trained));
    const training = new IndexerTraining(recipe, data, parameters, saved?.training);
    const ownTargets = recipe.targets === "own";
    const measure = async (step: number): Promise<Measured> => {
      const missed = new Map<number, number>();
      const divergence = new Map<number, number>();
      const batches = Math.floor(text.heldOut.length / recipe.batch);
      for (let batch = 0; batch < batches; batch++) {
        const first = text.training.length + batch * recipe.batch;
        const hidden = await states.read(Array.from({ length: recipe.batch }, (_, i) => first + i));
        const found = await session.run({
          hidden,
          queries: queriesAt(recipe, batch, length),
          sparse: false,
          measure: true,
          parameters,
          ownTargets,
          ...(anyPattern ? { pattern: model.config.indexerLayers } : {}),
        });
        for (const [layer, result] of found) {
          missed.set(layer, (missed.get(layer) ?? 0) + (result.missed ?? 0) / batches);
          divergence.set(layer, (divergence.get(layer) ?? 0) + result.loss / batches);
        }
      }
      return { step, missed, divergence };
    };
    const every = Math.max(1, Math.ceil(recipe.steps / Math.max(1, settings.measurements - 1)));
    const best: Best = saved?.best ?? { step: 0, missed: Number.POSITIVE_INFINITY, parameters: copyOf(parameters) };
    const look = async (): Promise<DistillEvent> => {
      const measured = await measure(training.state.step);
      const total = [...measured.missed.values()].reduce((sum, value) => sum + value, 0);
      const better = total < best.missed;
      if (better) Object.assign(best, { step: measured.step, missed: total, parameters: copyOf(parameters) });
      await store?.saveMeasured(group.full, measured);
      return { type: "measured", group, measured, best: better };
    };
    const measures = text.heldOut.length >= recipe.batch && settings.measurements > 0;
    const save = async (): Promise<void> => store?.saveCheckpoint(group.full, { training: training.state, best });
    if (measures && saved === undefined) yield await look();
    while (!training.finished) {
      if (signal?.aborted === true) {
        await save();
        signal.throwIfAborted();
      }
      const done = await training.advance(async (request) => {
        const hidden = await states.read(request.sequences);
        const { queries, sparse, pattern: drawn } = request;
        const drawnPattern = drawn === undefined ? {} : { pattern: drawn };
        return session.run({ hidden, queries, sparse, parameters, ownTargets, ...drawnPattern });
      });
      yield { type: "step", group, done };
      if (measures && (training.finished || training.state.step % every === 0)) yield await look();
      if (training.state.step % checkpointEvery === 0 && !training.finished) await save();
    }
    if (!measures) Object.assign(best, { step: training.state.step, parameters: copyOf(parameters) });
    await store?.saveTrained(group.full, { training: training.state, best });
    yield {
      type: "trained",
      group,
      parameters: best.parameters as Map<number, IndexerParameters>,
      step: best.step,
    };
  } finally {
    await session.release();
  }
}

function copyOf(parameters: ReadonlyMap<number, IndexerParameters>): Map<number, IndexerParameters> {
  return new Map(
    [...parameters].map(([layer, tensors]) => [
      layer,
      Object.fromEntries(
        Object.entries(tensors).map(([name, values]) => [name, Float32Array.from(values)]),
      ) as IndexerParameters,
    ]),
  );
}

/** States that enter layer 0. */
async function embed(
  model: ModelFolder,
  windows: readonly Int32Array[],
  states: BoundaryStates,
  settings: DistillationSettings,
): Promise<void> {
  const layers = await LayerStates.open(
    model,
    { from: 0, to: 0 },
    { ...settings, batch: 1, length: states.shape.length },
  );
  try {
    for (const [sequence, window] of windows.entries()) {
      settings.signal?.throwIfAborted();
      await states.write(sequence, await layers.run(BigInt64Array.from(window, BigInt)));
    }
  } finally {
    await layers.release();
  }
}

/** Takes every sequence from the boundary below a range of layers to the one above. */
async function carry(
  model: ModelFolder,
  from: BoundaryStates,
  to: BoundaryStates,
  range: LayerRange,
  settings: DistillationSettings,
): Promise<void> {
  const { sequences, length, hiddenSize } = from.shape;
  const batch = Math.min(settings.recipe.batch, sequences);
  const layers = await LayerStates.open(model, range, { ...settings, batch, length });
  const size = length * hiddenSize;
  try {
    for (let first = 0; first < sequences; first += batch) {
      settings.signal?.throwIfAborted();
      // The last batch reaches back, so that every run has the same shape.
      const start = Math.min(first, sequences - batch);
      const numbers = Array.from({ length: batch }, (_, i) => start + i);
      const states = await layers.run(await from.read(numbers));
      for (const [place, sequence] of numbers.entries()) {
        await to.write(sequence, states.slice(place * size, (place + 1) * size));
      }
    }
  } finally {
    await layers.release();
  }
}
