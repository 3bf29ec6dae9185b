/** A range of layers over caches that grow: its graph, and the rows that its layers keep. Ranges in several threads are a model. */
import type { Tensor } from "onnxruntime-node";
import { loadRuntime, OnnxSession } from "../session/onnx-session.ts";
import { FedCache } from "./fed-cache.ts";

/** A tensor as threads hand it on. */
export interface HandedTensor {
  type: Tensor.Type;
  data: Tensor.DataType;
  dims: readonly number[];
}

/** By the names of the graph's inputs or outputs. */
export type HandedTensors = Readonly<Record<string, HandedTensor>>;

/** Passes through structured clone. */
export interface LayerSettings {
  graph: Uint8Array;
  name: string;
  threads: number;
  /** Folder that the graph's external data lie in. */
  folder: string;
  /** Inputs that are handed on as they come, beside the outputs. */
  passes: readonly string[];
  /** The model's; those that the graph has are made. */
  caches: readonly { past: string; fresh: string; width: number }[];
  /** Tokens that the caches have room for before they grow. */
  capacity: number;
}

export class CachedLayers {
  readonly #session: OnnxSession;
  readonly #caches: FedCache[];
  readonly #fresh: ReadonlySet<string>;
  readonly #passes: readonly string[];

  private constructor(session: OnnxSession, { caches, capacity, passes }: LayerSettings) {
    const own = caches.filter(({ past }) => session.inputNames.includes(past));
    this.#session = session;
    this.#passes = passes;
    this.#caches = own.map((names) => new FedCache(names, capacity, "float32", true));
    this.#fresh = new Set(own.map(({ fresh }) => fresh));
  }

  static async open(settings: LayerSettings): Promise<CachedLayers> {
    const { graph, name, threads, folder } = settings;
    const session = await OnnxSession.create(graph, name, { device: "cpu", threads, folder, solo: true });
    return new CachedLayers(session, settings);
  }

  static async openAll(all: readonly LayerSettings[]): Promise<CachedLayers[]> {
    const opened: CachedLayers[] = [];
    for (const settings of all) opened.push(await CachedLayers.open(settings));
    return opened;
  }

  /**
   * Runs the rows from position `start` on, in the place of those that were there; returns what the next range takes, or the
   * logits.
   * @param inputs what the graph does not read is ignored
   */
  async run(start: number, inputs: HandedTensors): Promise<HandedTensors> {
    const { Tensor: tensor } = await loadRuntime();
    const read = Object.entries(inputs).filter(([name]) => this.#session.inputNames.includes(name));
    const feeds = read.map(([name, { type, data, dims }]) => [name, new tensor(type, data, dims)]);
    for (const { rows } of this.#caches) rows.truncate(start);
    const past = this.#caches.map((cache) => [cache.past, cache.tensor(tensor)]);
    const outputs = await this.#session.run(Object.fromEntries([...feeds, ...past]));
    for (const cache of this.#caches) cache.put(start, outputs);
    const handed = Object.entries(outputs).filter(([name]) => !this.#fresh.has(name));
    return Object.fromEntries([
      ...handed.map(([name, { type, data, dims }]) => [name, { type, data, dims }]),
      ...this.#passes.map((name) => [name, inputs[name]]),
    ]);
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

export function int64s(values: readonly number[]): HandedTensor {
  return { type: "int64", data: BigInt64Array.from(values, BigInt), dims: [values.length] };
}
