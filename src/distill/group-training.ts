/** Trains the indexers of one group of layers on stored hidden states, and keeps those that did best on held-out text. */
import type { LayerRange } from "../graph/exported/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { TargetWeight } from "../graph/training/attention-target.ts";
import { layersFed, type StepStates } from "../graph/training/distill-graph.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import { type BoundaryStates, fromBfloat16 } from "../runtime/training/boundary-states.ts";
import { GradientSession, type IndexerParameters } from "../runtime/training/gradient-session.ts";
import { readIndexers } from "../runtime/training/stored-indexers.ts";
import type { Boundaries, BoundaryStore } from "./boundaries.ts";
import { queriesAt, type Recipe } from "./recipe.ts";
import type { Best, SavedTraining } from "./saved-training.ts";
import { IndexerTraining, type LayerGroup, type StepDone } from "./training.ts";

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

/** A training whose held-out divergence has come to this many times what it began with is not coming back. */
const divergedAt = 2;

export async function* trainGroup(
  model: ModelFolder,
  text: DistillationText,
  boundaries: Boundaries,
  { group, range, trained, targets }: GroupWork,
  settings: DistillationSettings,
): AsyncGenerator<DistillEvent> {
  const { recipe, pattern, store, signal, stepStates, checkpointEvery = 25 } = settings;
  const length = text.training[0]?.length ?? 0;
  const anyPattern = pattern === "any";
  const states = new Map<number, BoundaryStates>();
  for (const layer of layersFed(range, { trained, targets }, stepStates)) states.set(layer, await boundaries.at(layer));
  const onHost = settings.device === "cpu";
  const session = await GradientSession.open(model, range, {
    device: settings.device,
    threads: settings.threads,
    // A GPU takes bits over the bus and widens them itself; on a CPU a loop is faster than a table in the graph.
    states: onHost ? "float32" : "bfloat16",
    stepStates,
    batch: recipe.batch,
    length,
    queries: queriesAt(recipe, 0, length).length,
    weight: settings.weight,
    trained,
    targets,
    anyPattern,
    ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
  });
  const read = async (sequences: readonly number[]): Promise<Map<number, Float32Array | Uint16Array>> => {
    const found = new Map<number, Float32Array | Uint16Array>();
    for (const [layer, boundary] of states) {
      const bits = await boundary.read(sequences);
      found.set(layer, onHost ? fromBfloat16(bits) : bits);
    }
    return found;
  };
  try {
    const trainable = anyPattern ? { trainable: model.config.indexerLayers } : {};
    const data = { sequences: text.training.length, length, ...trainable };
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
        const found = await session.run({
          hidden: await read(Array.from({ length: recipe.batch }, (_, i) => first + i)),
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
    const best: Best = saved?.best ?? {
      step: 0,
      missed: Number.POSITIVE_INFINITY,
      opening: Number.POSITIVE_INFINITY,
      parameters: copyOf(parameters),
    };
    let diverged = false;
    let ahead: ReturnType<typeof read> | undefined;
    const look = async (): Promise<DistillEvent> => {
      const measured = await measure(training.state.step);
      const total = sumOf(measured.missed);
      const better = total < best.missed;
      if (better) Object.assign(best, { step: measured.step, missed: total, parameters: copyOf(parameters) });
      if (measured.step === 0) best.opening = sumOf(measured.divergence);
      // Not a number is not better, either.
      diverged = !better && !(sumOf(measured.divergence) <= divergedAt * best.opening);
      await store?.saveMeasured(group.full, measured);
      return { type: "measured", group, measured, best: better };
    };
    const measures = text.heldOut.length >= recipe.batch && settings.measurements > 0;
    const save = async (): Promise<void> => store?.saveCheckpoint(group.full, { training: training.state, best });
    if (measures && saved === undefined) yield await look();
    while (!training.finished && !diverged) {
      if (signal?.aborted === true) {
        await save();
        signal.throwIfAborted();
      }
      const done = await training.advance(async (request) => {
        const { sequences, next, queries, sparse, pattern: drawn } = request;
        const drawnPattern = drawn === undefined ? {} : { pattern: drawn };
        const hidden = await (ahead ?? read(sequences));
        const found = session.run({ hidden, queries, sparse, parameters, ownTargets, ...drawnPattern });
        // The next step's states are read while this one computes.
        ahead = next === undefined ? undefined : read(next);
        ahead?.catch(() => {});
        return await found;
      });
      yield { type: "step", group, done };
      if (measures && (training.finished || training.state.step % every === 0)) yield await look();
      if (diverged) yield { type: "diverged", group, step: training.state.step, rate: recipe.rate, kept: best.step };
      else if (training.state.step % checkpointEvery === 0 && !training.finished) await save();
    }
    if (!measures) Object.assign(best, { step: training.state.step, parameters: copyOf(parameters) });
    await store?.saveTrained(group.full, { training: training.state, best });
    const kept = best.parameters as Map<number, IndexerParameters>;
    yield { type: "trained", group, parameters: kept, step: best.step };
  } finally {
    await session.release();
  }
}

function sumOf(values: ReadonlyMap<number, number>): number {
  return [...values.values()].reduce((sum, value) => sum + value, 0);
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
