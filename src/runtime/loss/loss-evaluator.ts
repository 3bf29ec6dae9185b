/**
 * LM loss of patterns on a fixed set of windows, in this process or spread over several. See `staged-loss.ts` for what is
 * reused between patterns, `open-losses.ts` for who computes what and `parallel-loss.ts` for the processes.
 */
import { RuntimeFailure } from "../../base/errors.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { lossFrame } from "../device/frame-choice.ts";
import { availableMemory } from "../device/host-memory.ts";
import type {
  ComputeDevice,
  Dtype,
  EvaluateContext,
  EvaluateOptions,
  Measurement,
  Objective,
  PatternEvaluator,
  PatternRequest,
  SequenceLoss,
} from "../measurement.ts";
import type { EarlyProcesses } from "../process/early-processes.ts";
import { defaultThreads } from "../session/onnx-session.ts";
import { standInIds } from "../session/stand-in-ids.ts";
import type { BackendSettings, SequenceLosses } from "./loss-backend.ts";
import { meanLoss } from "./mean-loss.ts";
import { openLosses } from "./open-losses.ts";
import { type LossRequest, ParallelLosses, type ParallelSettings, sharesOf } from "./parallel-loss.ts";
import { freeTemporaryBytes } from "./temporary-file.ts";
import { loadedPerStored, requirePartsRoom, sizesOf, weightShare, wholeBytes } from "./weight-room.ts";

/** Where the windows are computed. */
export type LossPlace =
  /** `workers` processes share them; where absent as many as cores, windows and memory suggest. */
  | { device: ComputeDevice; workers?: number }
  /** One process for each device. */
  | { devices: readonly ComputeDevice[] };

/** Threads and bytes are of all processes together; what is absent is decided here. */
export type LossSettings = LossPlace &
  Partial<Omit<BackendSettings, "device" | "room" | "numbers">> & {
    /** `kl` measures divergences beside losses; default `nll`. */
    objective?: Objective;
    /**
     * Bytes that all processes together may take on a CPU; on another device what boundary states may take. Default: what is
     * free. A model that has no room in it is loaded layer by layer, float32 on a CPU.
     */
    memory?: number | undefined;
    /** Hears of a process that died and was replaced. */
    onReplacement?: (words: string) => void;
    /** Processes that were started before the windows were known, in the order of the devices. */
    early?: EarlyProcesses | undefined;
  };

/** Share of the free memory that boundary states may take where `stateBytes` does not say. */
const stateShare = 0.4;
/** Share of the free temporary space that states may take where `spillBytes` does not say. */
const spillShare = 0.5;

/** Default of `top`. */
const defaultTop = 128;

/**
 * Opens an evaluator over windows of token ids; each window starts at position 0.
 * @throws RangeError for settings that are no sizes, counts or positions
 */
export async function openLossEvaluator(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: LossSettings,
): Promise<PatternEvaluator> {
  for (const name of ["memory", "stateBytes", "spillBytes", "top"] as const) {
    const value = settings[name] ?? 1;
    const sensible = name === "top" ? Number.isInteger(value) && value > 0 : Number.isFinite(value) && value >= 0;
    if (!sensible) throw new RangeError(`${name} cannot be ${value}`);
  }
  requireScored(windows, settings.scoredFrom);
  const { onReplacement, early } = settings;
  const { here, shared } = await placesOf(model, windows, settings);
  const losses: SequenceLosses =
    here === undefined
      ? await ParallelLosses.open(model, windows, { ...shared, onReplacement, early })
      : await openLosses(model, windows, here);
  return new LossEvaluator(losses, windows.length);
}

/**
 * Has early processes open the model for windows of these lengths and run them once, so that a GPU is warm when the true ones
 * come. Where those are others after all, it opens what they need.
 */
export async function foreseeLosses(
  model: ModelFolder,
  lengths: readonly number[],
  { early, ...settings }: LossSettings & { early: EarlyProcesses },
): Promise<void> {
  const { vocabSize, indexerLayers: pattern } = model.config;
  const windows = lengths.map((length) => Int32Array.from(standInIds(vocabSize, length)));
  const { shared } = await placesOf(model, windows, settings);
  if (shared === undefined) return;
  for (const [index, { opening }] of sharesOf(model, windows, shared).entries()) {
    const evaluation: LossRequest = { kind: "evaluate", requests: [{ pattern, sequences: [0] }], options: {} };
    early.processes[index]?.foresee([opening, evaluation]);
  }
}

/** What this process computes, or several share. */
type LossPlaces =
  | { here: BackendSettings; shared?: undefined }
  | { here?: undefined; shared: Omit<ParallelSettings, "onReplacement" | "early"> };

async function placesOf(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: LossSettings,
): Promise<LossPlaces> {
  const memory = settings.memory ?? availableMemory();
  const threads = settings.threads ?? defaultThreads();
  const dtype = settings.dtype ?? "float32";
  const { objective = "nll", top = defaultTop } = settings;
  const spillBytes = settings.spillBytes ?? Math.floor((await freeTemporaryBytes()) * spillShare);
  const { scoredFrom, together, recording } = settings;
  const kept = objective === "kl" ? top : undefined;
  const common = { dtype, threads, spillBytes, top: kept, scoredFrom, together };
  const onCpu = "device" in settings && lossFrame(settings.device, dtype) === "stages";
  const sizes = onCpu ? await sizesOf(model) : undefined;
  if (sizes !== undefined && wholeBytes(sizes) > memory) {
    const lengths = windows.map(({ length }) => length);
    const parts = requirePartsRoom(model.config, sizes, lengths, memory);
    const stateBytes = settings.stateBytes ?? parts.stateBytes;
    const inParts = { ...common, stateBytes, room: parts.room };
    return recording === undefined
      ? { shared: { ...inParts, devices: ["cpu"] } }
      : { here: { ...inParts, recording, device: "cpu" } };
  }
  const each = sizes === undefined ? loadedPerStored * model.weightBytes : wholeBytes(sizes);
  const devices =
    "devices" in settings ? settings.devices : processDevices(each, memory, windows.length, settings, dtype, threads);
  const beside = onCpu && settings.memory !== undefined ? memory - devices.length * each : memory * stateShare;
  const stateBytes = settings.stateBytes ?? Math.floor(Math.max(0, beside));
  const share = { ...common, stateBytes };
  // A GPU's native failure ends its process, and that is not to be this one: only a recording needs it here.
  const inThisProcess = devices.every((device) => device === "cpu") || recording !== undefined;
  return "device" in settings && devices.length === 1 && inThisProcess
    ? { here: { ...share, recording, device: settings.device } }
    : { shared: { ...share, devices } };
}

class LossEvaluator implements PatternEvaluator {
  readonly #losses: SequenceLosses;
  readonly #windows: number;

  constructor(losses: SequenceLosses, windows: number) {
    this.#losses = losses;
    this.#windows = windows;
  }

  get plan(): string[] {
    return this.#losses.plan;
  }

  get isWarm(): boolean {
    return this.#losses.isWarm;
  }

  get sideBySide(): number {
    return this.#losses.sideBySide;
  }

  async *evaluateAll(
    requests: readonly PatternRequest[],
    { keep, ...context }: EvaluateContext = {},
  ): AsyncGenerator<Measurement, undefined> {
    for (const { sequences } of requests) this.#requireWindows(sequences);
    for (let done = 0; done < requests.length; ) {
      const started = performance.now();
      const asked = requests.slice(done, done + this.#losses.patternsAtOnce);
      const results = await this.#losses.evaluateAll(asked, { ...context, keep: keep?.() });
      const seconds = (performance.now() - started) / 1000 / results.length;
      for (const { sequences, executions } of results) {
        const { pattern, sequences: asked } = requests[done++] as PatternRequest;
        requireFinite(pattern, sequences, asked);
        yield { pattern, ...meanLoss(sequences), sequences, seconds, executions };
      }
    }
  }

  async evaluate(pattern: Pattern, { base, sequences, keep, ...context }: EvaluateOptions = {}): Promise<Measurement> {
    const all = this.evaluateAll([{ pattern, base, sequences }], { ...context, keep: () => keep ?? [] });
    return (await all.next()).value as Measurement;
  }

  async release(): Promise<void> {
    await this.#losses.release();
  }

  #requireWindows(asked: readonly number[] | undefined): void {
    if (asked === undefined) return;
    if (asked.length === 0) throw new RangeError("an evaluation needs at least one sequence");
    const strange = asked.find((index) => !Number.isInteger(index) || index < 0 || index >= this.#windows);
    if (strange !== undefined) throw new RangeError(`there is no sequence ${strange}, only ${this.#windows} of them`);
  }
}

function requireScored(windows: readonly Int32Array[], scoredFrom: readonly number[] | undefined): void {
  if (scoredFrom === undefined) return;
  if (scoredFrom.length !== windows.length) {
    throw new RangeError(`${windows.length} windows with ${scoredFrom.length} positions to score from`);
  }
  for (const [index, from] of scoredFrom.entries()) {
    if (Number.isInteger(from) && from >= 1 && from < (windows[index] as Int32Array).length) continue;
    throw new RangeError(`window ${index} cannot be scored from position ${from}`);
  }
}

/** Most evaluators know in which layer it began and have said so; no loss that is no number gets past here. */
function requireFinite(pattern: Pattern, losses: readonly SequenceLoss[], asked: readonly number[] | undefined): void {
  const place = losses.findIndex(({ loss, kl = 0 }) => !Number.isFinite(loss) || !Number.isFinite(kl));
  if (place === -1) return;
  const { loss, kl } = losses[place] as SequenceLoss;
  const value = Number.isFinite(loss) ? `KL is ${kl}` : `loss is ${loss}`;
  throw new RuntimeFailure(`The ${value} on sequence ${asked?.[place] ?? place} with pattern ${pattern}`, {
    hint: "look for weights that are not finite, or too large for --dtype float16",
  });
}

/**
 * One process for each core, as long as the weights fit: threads inside a layer's small products gain far less than
 * whole sequences side by side (docs/log.md). Where whole batches run, one process does not leave the device idle.
 */
function processDevices(
  each: number,
  memory: number,
  windows: number,
  { device, workers }: Extract<LossPlace, { device: ComputeDevice }>,
  dtype: Dtype,
  threads: number,
): ComputeDevice[] {
  const byMemory = Math.floor((weightShare * memory) / each);
  const sensible = lossFrame(device, dtype) === "sequences" ? 1 : Math.max(1, Math.min(threads, windows, byMemory));
  return Array.from({ length: workers ?? sensible }, () => device);
}
