/**
 * Distils a model's indexers for a pattern, group by group: a group is a Full layer and the layers that read its selection.
 * The hidden states that enter the group's layers are made once, a layer in memory at a time; training then reads them batch
 * by batch and holds the attention of these layers alone, no MLP and no expert. For any pattern there is one group, the
 * whole model.
 */
import type { ModelFolder } from "../graph/model-folder.ts";
import { layersFed, type StepStates } from "../graph/training/distill-graph.ts";
import { isFull, type Pattern, parsePattern } from "../pattern/pattern.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import { Boundaries, type LayersTogether } from "./boundaries.ts";
import {
  type DistillationSettings,
  type DistillationText,
  type DistillEvent,
  type GroupWork,
  trainGroup,
} from "./group-training.ts";
import type { Recipe } from "./recipe.ts";
import { layerGroups } from "./training.ts";

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

/**
 * Events of several sources, in the order in which they happen. Where one source fails, the others end after what they are at, and the failure is thrown.
 * @param sources all of them begin at once
 */
async function* sideBySide<Event>(sources: readonly AsyncGenerator<Event>[]): AsyncGenerator<Event> {
  const next = async (source: AsyncGenerator<Event>) => ({ source, result: await source.next() });
  const pending = new Map(sources.map((source) => [source, next(source)]));
  try {
    while (pending.size > 0) {
      const { source, result } = await Promise.race(pending.values());
      if (result.done === true) pending.delete(source);
      else {
        yield result.value;
        pending.set(source, next(source));
      }
    }
  } finally {
    await Promise.allSettled(pending.values());
    await Promise.allSettled(sources.map((source) => source.return(undefined)));
  }
}
