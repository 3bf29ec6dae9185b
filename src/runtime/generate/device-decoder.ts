/**
 * Inference with a fixed pattern on CUDA: one graph over the whole model (`graph/generation-graph.ts`). In float16 the
 * caches stay on the device and a step brings a token id in and logits out; in float32 they cross with every run.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Tensor } from "onnxruntime-node";
import { InputError, InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { CacheForm } from "../../graph/frames/generation-caches.ts";
import {
  buildGenerationGraph,
  type GenerationSettings,
  generationCaches,
  wayInput,
  waysOf,
} from "../../graph/frames/generation-graph.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import { type Kernels, kernelsOf, type Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { deviceMemory } from "../loss/sequence-memory.ts";
import type { Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import {
  defaultThreads,
  type Feeds,
  floats,
  loadRuntime,
  OnnxSession,
  type SessionSettings,
} from "../session/onnx-session.ts";
import type { Recording } from "../session/recording.ts";
import { keepsWhatIsWritten } from "./cache-check.ts";
import type { ScoringDecoder } from "./decoder.ts";
import { FedCache } from "./fed-cache.ts";
import {
  capacityFor,
  decodeRun,
  type GenerationNeed,
  type GenerationRun,
  generationNeed,
  promptRuns,
} from "./generation-runs.ts";
import { rowsOfLogits, scoreRows } from "./sampling.ts";

export interface DeviceDecoderSettings {
  device: SessionSettings["device"];
  dtype: Dtype;
  threads?: number;
  /** Tokens that the caches hold: they do not grow. */
  capacity: number;
  /** The provider whose formulation the graph takes; the device's where absent. Another one in tests. */
  provider?: Provider;
  profilePrefix?: string;
  recording?: Recording;
}

export class DeviceDecoder implements ScoringDecoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #kernels: Kernels;
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #settings: GenerationSettings;
  readonly #tokens: number;
  /** Empty where caches are resident. */
  readonly #caches: FedCache[];
  readonly #fullLayers: number;
  /** The tokens in the caches, and the runs that put them there. */
  #ids: number[] = [];
  #runs: GenerationRun[] = [];
  #made = 0;
  #saved = 0;

  private constructor(
    config: DsaConfig,
    pattern: Pattern,
    session: OnnxSession,
    tensor: typeof Tensor,
    settings: GenerationSettings,
    tokens: number,
    plan: string[],
  ) {
    this.pattern = pattern;
    this.vocabularySize = config.vocabSize;
    this.plan = plan;
    this.#config = config;
    this.#kernels = kernelsOf(settings.provider, settings.precision);
    this.#session = session;
    this.#tensor = tensor;
    this.#settings = settings;
    this.#tokens = tokens;
    this.#fullLayers = fullLayers(pattern).length;
    const half = settings.precision === OnnxType.float16;
    this.#caches =
      settings.caches === "resident"
        ? []
        : generationCaches(config, pattern).map(
            (names) => new FedCache(names, settings.capacity, half ? "float16" : "float32"),
          );
  }

  /**
   * @throws RuntimeFailure where the device has less memory than weights, caches and one run take, or loses what is in its
   *   caches
   */
  static async open(model: ModelFolder, pattern: Pattern, options: DeviceDecoderSettings): Promise<DeviceDecoder> {
    const { config } = model;
    const { device, dtype } = options;
    const { Tensor } = await loadRuntime();
    const half = dtype === "float16";
    // The operator that writes into a cache in place has no kernel for float32, and none on a CPU.
    const caches: CacheForm = half && providerOf(device) === "cuda" ? "resident" : "fed";
    const settings: GenerationSettings = {
      precision: half ? OnnxType.float16 : OnnxType.float,
      provider: options.provider ?? providerOf(device),
      caches,
      capacity: capacityFor(config, options.capacity),
    };
    const weights = await model.weights();
    const kernels = kernelsOf(settings.provider, settings.precision);
    const need = generationNeed(config, weights, pattern, kernels, settings.capacity, half ? 2 : 4);
    const free = (await deviceMemory(device))?.free;
    if (free !== undefined && need.weights + need.caches + need.run > free) {
      throw new RuntimeFailure(`The model needs about ${describe(need)}; ${device} has ${gib(free)} free`, {
        hint: "use a shorter prompt, fewer new tokens (--max-new-tokens), --dtype float16, or --device cpu",
      });
    }
    const graph = encodeModel(buildGenerationGraph(config, weights, pattern, settings));
    const session = await OnnxSession.create(graph, `${config.name} ${pattern}`, {
      device,
      threads: options.threads ?? defaultThreads(),
      folder: model.places.folder,
      solo: true,
      // Index scores multiply float16 values then: TF32 holds them exactly.
      tf32: half,
      ...(options.profilePrefix === undefined ? {} : { profilePrefix: options.profilePrefix }),
      ...(options.recording === undefined ? {} : { recording: options.recording }),
    });
    const plan = [
      `device memory: ${describe(need)}`,
      `caches of ${settings.capacity} tokens, ${dtype}, ${caches === "resident" ? "on the device" : "in host memory: they cross with every run"}`,
    ];
    const decoder = new DeviceDecoder(config, pattern, session, Tensor, settings, options.capacity, plan);
    if (caches === "resident" && options.capacity >= 2 && !(await keepsWhatIsWritten(decoder))) {
      await decoder.release();
      throw new RuntimeFailure("This ONNX Runtime does not keep caches on the device from one run to the next", {
        hint: "use --dtype float32, or the version of onnxruntime-node that package.json names",
      });
    }
    return decoder;
  }

  get indexerExecutions(): { made: number; saved: number } {
    return { made: this.#made, saved: this.#saved };
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    const bytes = (caches: { width: number }[]) =>
      caches.reduce((sum, { width }) => sum + width, 0) *
      this.position *
      (this.#settings.precision === OnnxType.float16 ? 2 : 4);
    const caches = generationCaches(this.#config, this.pattern);
    const layers = this.#config.numHiddenLayers;
    return { latent: bytes(caches.slice(0, layers)), indexerKey: bytes(caches.slice(layers)) };
  }

  async prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("The prompt has no tokens");
    return await this.#extend(ids, signal);
  }

  async decode(id: number): Promise<Float32Array> {
    this.#requireRoom(1);
    return await this.#run(decodeRun(this.#config, this.position), [id], false);
  }

  /** Tokens in the caches. */
  get position(): number {
    return this.#ids.length;
  }

  /** Runs of the graph since it was opened. */
  get runs(): number {
    return this.#session.traffic.runs;
  }

  /** Forgets the tokens from `position` on: what is written next takes their place. */
  rewind(position: number): void {
    if (!(position >= 0 && position <= this.position)) throw new RangeError(`no position ${position} to go back to`);
    this.#ids.length = position;
    // What is cut off a run counts as padding: run again, it keeps its shape and with it its bits.
    this.#runs = this.#runs
      .filter(({ start }) => start < position)
      .map((run) => ({
        ...run,
        end: Math.min(run.end, position),
        padding: run.padding + Math.max(run.end - position, 0),
      }));
  }

  /** Takes `count` rows of whatever is in the caches for tokens that have been run: for timings. */
  skip(count: number): void {
    this.#requireRoom(count);
    this.#ids.push(...Array.from({ length: count }, () => 0));
  }

  /** Runs whose rows were overwritten are made again: caches on the device cannot be set aside. */
  async lookAhead(ids: readonly number[], start: number, signal?: AbortSignal) {
    const counts = [this.#made, this.#saved] as const;
    const again = this.#runs.filter(({ end }) => end >= start);
    const from = again[0]?.start ?? start - 1;
    const taken = this.#ids.slice(from);
    // The row before `start` runs again: nobody keeps the logits of rows inside a prompt.
    this.rewind(start - 1);
    try {
      const logProbabilities: number[] = [];
      const logits = await this.#extend(ids.slice(start - 1), signal, (all, first) =>
        scoreRows(all, this.vocabularySize, ids, first, logProbabilities),
      );
      return { logProbabilities, logits };
    } finally {
      this.rewind(from);
      for (const run of again) await this.#run(run, taken.slice(run.start - from, run.end - from), false);
      [this.#made, this.#saved] = counts;
    }
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  /**
   * Runs the next tokens.
   * @param read takes the logits of every row of a run and the position of its first, and returns those of the last one
   */
  async #extend(
    ids: readonly number[],
    signal: AbortSignal | undefined,
    read?: (logits: Float32Array, first: number) => Float32Array,
  ): Promise<Float32Array> {
    const first = this.position;
    this.#requireRoom(ids.length);
    const most = read === undefined ? undefined : rowsOfLogits(this.vocabularySize);
    let logits: Float32Array = new Float32Array();
    for (const run of promptRuns(this.#config, this.#kernels, first, first + ids.length, most)) {
      // A run blocks the event loop; between runs a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      const all = await this.#run(run, ids.slice(run.start - first, run.end - first), read !== undefined);
      logits = read === undefined ? all : read(all, run.start);
    }
    return logits;
  }

  #requireRoom(tokens: number): void {
    if (this.position + tokens <= this.#tokens) return;
    throw new InputError(`The caches were made for ${this.#tokens} tokens, and ${this.position + tokens} are needed`);
  }

  /** Logits of the last row, or of each. */
  async #run(made: GenerationRun, ids: readonly number[], ofEachRow: boolean): Promise<Float32Array> {
    const { start, end, padding, way, blocks } = made;
    const rows = end - start + padding;
    const wanted = ofEachRow
      ? BigInt64Array.from(ids, (_, row) => BigInt(row))
      : BigInt64Array.of(BigInt(ids.length - 1));
    const padded = BigInt64Array.from({ length: rows }, (_, row) => BigInt(ids[row] ?? 0));
    const feeds: Feeds = {
      input_ids: this.#int64(padded),
      position_ids: this.#int64(BigInt64Array.from({ length: rows }, (_, row) => BigInt(start + row))),
      logits_row: this.#int64(wanted),
      readable_blocks: new this.#tensor("float32", new Float32Array(), [blocks, 0]),
    };
    for (const each of waysOf(this.#config, this.#settings).slice(0, -1)) {
      feeds[wayInput(each)] = new this.#tensor("bool", Uint8Array.of(each === way ? 1 : 0), []);
    }
    for (const cache of this.#caches) feeds[cache.past] = cache.tensor(this.#tensor);
    const outputs = await this.#session.run(feeds);
    for (const cache of this.#caches) cache.put(start, outputs[cache.fresh]);
    this.#ids.push(...ids);
    this.#runs.push(made);
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (end > this.#config.indexTopk) {
      this.#made += this.#fullLayers;
      this.#saved += this.#config.numHiddenLayers - this.#fullLayers;
    }
    return floats(outputs.logits, "logits");
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function describe({ weights, caches, run }: GenerationNeed): string {
  return `${gib(weights + caches + run)} = weights ${gib(weights)} + caches ${gib(caches)} + one run ${gib(run)}`;
}
