/** Looks at every layer of every sequence, on the CPU: what its indexer selects, and what of others' selections it could use. */
import { PairStatistics } from "../../analyze/pair-statistics.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { formatDuration } from "../../report/quantities.ts";
import { availableMemory } from "../../runtime/device/host-memory.ts";
import { requirePartsRoom, sizesOf, wholeBytes } from "../../runtime/loss/weight-room.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { type LayerObservation, LayerObserver } from "../../runtime/stages/layer-observer.ts";
import type { LayerRoom } from "../../runtime/stages/stage-sessions.ts";
import type { Terminal } from "../console/terminal.ts";

export async function compareLayers(
  model: ModelFolder,
  pattern: Pattern,
  windows: readonly Int32Array[],
  { threads = defaultThreads(), memory = availableMemory() }: { threads?: number; memory: number | undefined },
  terminal: Terminal,
): Promise<PairStatistics> {
  const { numHiddenLayers, indexerLayers, indexTopk } = model.config;
  const statistics = new PairStatistics(numHiddenLayers, fullLayers(indexerLayers), indexTopk);
  const room = await roomToCompare(model, windows, memory);
  if (room !== undefined)
    terminal.note("comparing layers: the model has no room in memory, its layers are loaded in turn");
  const observer = await LayerObserver.open(model, threads, room);
  // A layer that is loaded is for all of them.
  const together = room === undefined ? 1 : sequencesTogether;
  const started = performance.now();
  const tell = (done: number, what: string): void => {
    const seconds = ((performance.now() - started) / 1000) * (1 / done - 1);
    terminal.note(`compared layers on ${what}${done === 1 ? "" : `, about ${formatDuration(seconds)} left`}`);
  };
  try {
    for (let first = 0; first < windows.length; first += together) {
      const some = windows.slice(first, first + together);
      const observed = some.map((ids) => observer.observe(ids, pattern, terminal.signal));
      for (let layer = 0; layer < numHiddenLayers; layer++) {
        for (const sequence of observed) statistics.add((await sequence.next()).value as LayerObservation);
        if (room === undefined) continue;
        const done = (first + some.length * ((layer + 1) / numHiddenLayers)) / windows.length;
        tell(done, `layer ${layer + 1} of ${numHiddenLayers}, sequences ${first + 1} to ${first + some.length}`);
      }
      if (room === undefined) tell((first + 1) / windows.length, `sequence ${first + 1} of ${windows.length}`);
    }
  } finally {
    await observer.release();
  }
  return statistics;
}

/** Sequences that go through each layer side by side where layers come and go: their selections are in memory. */
const sequencesTogether = 16;

/** Whether layers come and go while they are compared; undefined where all stay. */
async function roomToCompare(
  model: ModelFolder,
  windows: readonly Int32Array[],
  memory: number,
): Promise<LayerRoom | undefined> {
  const sizes = await sizesOf(model);
  if (sizes === undefined || wholeBytes(sizes) <= memory) return undefined;
  const lengths = [Math.max(...windows.map(({ length }) => length))];
  const { room } = requirePartsRoom(model.config, sizes, lengths, memory);
  // None stays: losses come next, and memory that this process has had does not all go back.
  return { ...room, staysFrom: model.config.numHiddenLayers, headStays: false };
}
