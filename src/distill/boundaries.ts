/**
 * The frozen model's hidden states at layer boundaries, made layer by layer when they are asked for: every sequence goes
 * through every layer once, whatever is trained how long. Boundary l has the states that enter layer l.
 */
import type { ModelFolder } from "../graph/model-folder.ts";
import { isFull, type Pattern } from "../pattern/pattern.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import {
  type BoundaryShape,
  type BoundaryStates,
  fromBfloat16,
  StatesInMemory,
} from "../runtime/training/boundary-states.ts";
import { LayerStates } from "../runtime/training/layer-states.ts";

/** Where boundaries outlive the process. */
export interface BoundaryStore {
  boundary(layer: number, shape: BoundaryShape): Promise<BoundaryStates | undefined>;
  newBoundary(layer: number, shape: BoundaryShape): Promise<BoundaryStates>;
  boundaryComplete(layer: number, states: BoundaryStates): Promise<void>;
  dropBoundary(layer: number): Promise<void>;
}

/** F where a run of layers begins that states go through together, and whether boundaries inside such runs are kept. */
export interface LayersTogether {
  starts: Pattern;
  inside: boolean;
}

export interface BoundarySettings {
  together: LayersTogether;
  device: ComputeDevice;
  threads: number;
  /** Sequences of one run. */
  batch: number;
  store?: BoundaryStore | undefined;
  signal?: AbortSignal | undefined;
  /** Hears of each batch that a layer has seen. */
  onCarried?: ((layer: number, sequences: number, total: number) => void) | undefined;
}

/**
 * The layers that run together below a boundary.
 * @param boundary above layer 0
 */
export function rangeBelow({ starts }: LayersTogether, boundary: number): { from: number; to: number } {
  let from = boundary - 1;
  while (from > 0 && !isFull(starts, from)) from--;
  let to = boundary;
  while (to < starts.length && !isFull(starts, to)) to++;
  return { from, to };
}

/** Rows of a run that fill a large GPU: more gain nothing and cost memory. */
const rowsPerRun = 32768;

/** Sequences that go through a layer together, at most as many as a training step has. */
export function carriedBatch(most: number, { sequences, length }: Pick<BoundaryShape, "sequences" | "length">): number {
  return Math.max(1, Math.min(most, sequences, Math.floor(rowsPerRun / length)));
}

/** First sequences of the batches; the last one reaches back, so that every run has the same shape. */
function batchesOf(sequences: number, batch: number): number[] {
  return Array.from({ length: Math.ceil(sequences / batch) }, (_, i) => Math.min(i * batch, sequences - batch));
}

/** For work that is awaited later: a failure is heard of then. */
function inBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

export class Boundaries {
  readonly #model: ModelFolder;
  readonly #windows: readonly Int32Array[];
  readonly #shape: BoundaryShape;
  readonly #settings: BoundarySettings;
  readonly #open = new Map<number, BoundaryStates>();

  constructor(model: ModelFolder, windows: readonly Int32Array[], settings: BoundarySettings) {
    this.#model = model;
    this.#windows = windows;
    const length = windows[0]?.length ?? 0;
    this.#shape = { sequences: windows.length, length, hiddenSize: model.config.hiddenSize };
    this.#settings = settings;
  }

  /** The states at a boundary, made from those below where they are not there yet. */
  async at(layer: number): Promise<BoundaryStates> {
    const there = await this.#kept(layer);
    if (there !== undefined) return there;
    if (layer === 0) return await this.#embed();
    const range = rangeBelow(this.#settings.together, layer);
    await this.#carry(await this.at(range.from), range);
    return this.#open.get(layer) as BoundaryStates;
  }

  /** Frees boundaries that no later layer needs. */
  async drop(layers: Iterable<number>): Promise<void> {
    for (const layer of layers) {
      await this.#open.get(layer)?.close();
      this.#open.delete(layer);
      await this.#settings.store?.dropBoundary(layer);
    }
  }

  async close(): Promise<void> {
    for (const states of this.#open.values()) await states.close();
    this.#open.clear();
  }

  async #kept(layer: number): Promise<BoundaryStates | undefined> {
    const open = this.#open.get(layer) ?? (await this.#settings.store?.boundary(layer, this.#shape));
    if (open !== undefined) this.#open.set(layer, open);
    return open;
  }

  async #create(layer: number): Promise<BoundaryStates> {
    return (await this.#settings.store?.newBoundary(layer, this.#shape)) ?? new StatesInMemory(this.#shape);
  }

  async #complete(layer: number, states: BoundaryStates): Promise<void> {
    await this.#settings.store?.boundaryComplete(layer, states);
    this.#open.set(layer, states);
  }

  /** States that enter layer 0. */
  async #embed(): Promise<BoundaryStates> {
    const { threads, signal } = this.#settings;
    const states = await this.#create(0);
    // Rows of a table: a GPU would only carry them there and back.
    const place = { device: "cpu", threads, batch: 1, length: this.#shape.length } as const;
    const embedding = await LayerStates.open(this.#model, { from: 0, to: 0 }, place);
    try {
      let written: Promise<unknown> = Promise.resolve();
      for (const [sequence, window] of this.#windows.entries()) {
        signal?.throwIfAborted();
        const embedded = await embedding.run(BigInt64Array.from(window, BigInt));
        await written;
        written = inBackground(states.write(sequence, embedded.get(0) as Float32Array));
      }
      await written;
      await this.#complete(0, states);
      return states;
    } catch (error) {
      await states.close();
      throw error;
    } finally {
      await embedding.release();
    }
  }

  /** Takes every sequence through the layers of a range. */
  async #carry(below: BoundaryStates, range: { from: number; to: number }): Promise<void> {
    const { sequences, length } = this.#shape;
    const { device, threads, signal, onCarried, together } = this.#settings;
    const batch = carriedBatch(this.#settings.batch, this.#shape);
    const above = new Map<number, BoundaryStates>();
    const boundaries = together.inside ? {} : { boundaries: [range.to] };
    // A GPU widens the bits itself.
    const states = device === "cpu" ? "float32" : "bfloat16";
    const layers = await LayerStates.open(this.#model, range, {
      device,
      threads,
      batch,
      length,
      states,
      ...boundaries,
    });
    const read = (first: number) => inBackground(below.read(Array.from({ length: batch }, (_, i) => first + i)));
    try {
      for (let layer = together.inside ? range.from + 1 : range.to; layer <= range.to; layer++) {
        if ((await this.#kept(layer)) === undefined) above.set(layer, await this.#create(layer));
      }
      const batches = batchesOf(sequences, batch);
      let ahead = read(0);
      let written: Promise<unknown> = Promise.resolve();
      for (const [place, first] of batches.entries()) {
        signal?.throwIfAborted();
        const bits = await ahead;
        // A run blocks this thread: files are read and written, and hashed, by others meanwhile.
        const next = batches[place + 1];
        if (next !== undefined) ahead = read(next);
        const found = await layers.run(device === "cpu" ? fromBfloat16(bits) : bits);
        await written;
        written = inBackground(
          Promise.all([...above].map(([layer, states]) => states.write(first, found.get(layer) as Float32Array))),
        );
        onCarried?.(range.from, first + batch, sequences);
      }
      await written;
      for (const [layer, states] of above) {
        await this.#complete(layer, states);
        above.delete(layer);
      }
    } catch (error) {
      for (const states of above.values()) await states.close();
      throw error;
    } finally {
      await layers.release();
    }
  }
}
