/** The one door to ONNX Runtime. What its options mean and why they are set was measured; docs/log.md has the figures. */
import { availableParallelism } from "node:os";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { InputError } from "../../base/errors.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { encodeModel, GraphBuilder } from "../../graph/graph-builder.ts";
import type { ComputeDevice } from "../measurement.ts";
import { executionProviders, providerOf } from "./execution-provider.ts";
import type { Recording } from "./recording.ts";
import { explainLoad, explainRun } from "./runtime-error.ts";
import { countRun, noTraffic, type Traffic } from "./traffic.ts";

type Runtime = typeof import("onnxruntime-node");

let runtime: Promise<Runtime> | undefined;

/** Loads ONNX Runtime, once. */
export function loadRuntime(): Promise<Runtime> {
  // The Linux build opens a database and a log file unless this is set before the library is loaded.
  process.env.ORT_DISABLE_TELEMETRY = "1";
  runtime ??= import("onnxruntime-node").then((module) => module.default ?? module);
  return runtime;
}

export interface SessionSettings {
  device: ComputeDevice;
  threads: number;
  /** Folder that the graph's external data lie in. */
  folder: string;
  /** Writes a profile of every node that runs to `<prefix>_<time>.json` when the session is closed. */
  profilePrefix?: string | undefined;
  /** Takes up the session's profile and traffic; decides where the profile goes. */
  recording?: Recording | undefined;
  /**
   * The only session of the process: its threads may spin between nodes, and an arena pays. Dozens of sessions would
   * fight for the cores, and each would keep the peak of its own buffers.
   */
  solo?: boolean;
  /**
   * ONNX Runtime gives each branch of a graph a cuBLAS handle of its own, and a handle takes 64 MiB of a Hopper card for itself: 0.75 GiB
   * for losses of a model of 4 layers, 20 GiB of 48. With 128 KiB products of many rows are as quick, those of one row are not
   * (docs/gpu.md). Counts from the process's first session.
   */
  smallWorkspaces?: boolean;
  /**
   * Bytes of a tensor up to which it is computed beforehand, on the host, where it comes from weights alone; larger ones are
   * computed in every run. Default: all, up to ONNX Runtime's own limit of 1 GiB; they pass through the host's memory several
   * times at once.
   */
  foldsUpTo?: number | undefined;
  /** Float32 products on CUDA may round their factors to TF32, ten bits of mantissa. Never for results in float32. */
  tf32?: boolean;
}

/** Default of `--threads`. */
export function defaultThreads(): number {
  return availableParallelism();
}

export type Feeds = Record<string, Tensor>;

/** A graph that is ready to run. */
export class OnnxSession {
  /** What has gone in and come out since the session was opened. */
  readonly traffic: Readonly<Traffic>;
  /** Makes what goes in. */
  readonly Tensor: Runtime["Tensor"];
  readonly #name: string;
  readonly #session: InferenceSession;
  readonly #profiled: boolean;
  readonly #traffic: Traffic;

  private constructor(
    name: string,
    session: InferenceSession,
    profiled: boolean,
    traffic: Traffic,
    tensor: Runtime["Tensor"],
  ) {
    this.Tensor = tensor;
    this.#name = name;
    this.#session = session;
    this.#profiled = profiled;
    this.#traffic = traffic;
    this.traffic = traffic;
  }

  /** @throws RuntimeFailure where no session can be created */
  static async create(graph: Uint8Array, name: string, settings: SessionSettings): Promise<OnnxSession> {
    const { InferenceSession, Tensor } = await loadRuntime();
    // ONNX Runtime allows TF32 unless it is told otherwise, and its binding has no option for it. cuBLAS reads this once,
    // so a process has float32 sessions or float16 ones.
    if (settings.tf32 !== true && providerOf(settings.device) === "cuda") process.env.NVIDIA_TF32_OVERRIDE ??= "0";
    if (settings.smallWorkspaces === true) process.env.CUBLAS_WORKSPACE_CONFIG ??= ":16:8";
    const traffic = noTraffic();
    const profilePrefix = settings.recording?.add(name, traffic) ?? settings.profilePrefix;
    const options: InferenceSession.SessionOptions = {
      executionProviders: executionProviders(settings.device),
      intraOpNumThreads: settings.threads,
      interOpNumThreads: 1,
      enableCpuMemArena: settings.solo === true,
      // A second run of the same shapes would take all that the first one allocated once more, as one block: the arena of a
      // device never gives back the pieces.
      enableMemPattern: settings.device === "cpu",
      // Errors come as exceptions: the runtime would print them as well, in red.
      logSeverityLevel: 4,
      extra: {
        session: {
          // A softmax over mostly masked keys meets denormals, which cost twice the time. Counts from the first session.
          set_denormal_as_zero: "1",
          "intra_op.allow_spinning": settings.solo === true ? "1" : "0",
          model_external_initializers_file_folder_path: settings.folder,
          // Weights take their own size of a device's memory instead of an arena's next power of two.
          ...(settings.device === "cpu" ? {} : { use_device_allocator_for_initializers: "1" }),
        },
        ...(settings.foldsUpTo === undefined
          ? {}
          : { optimization: { constant_folding_max_output_size_in_bytes: String(Math.max(1, settings.foldsUpTo)) } }),
      },
      ...(profilePrefix === undefined ? {} : { enableProfiling: true, profileFilePrefix: profilePrefix }),
    };
    try {
      const session = await InferenceSession.create(graph, options);
      return new OnnxSession(name, session, profilePrefix !== undefined, traffic, Tensor);
    } catch (error) {
      throw explainLoad(error, name);
    }
  }

  get inputNames(): readonly string[] {
    return this.#session.inputNames;
  }

  get outputNames(): readonly string[] {
    return this.#session.outputNames;
  }

  /** @param fetches the outputs that are wanted; the others are not copied out of the device */
  async run(feeds: Feeds, fetches?: readonly string[]): Promise<Feeds> {
    try {
      const outputs = await (fetches === undefined ? this.#session.run(feeds) : this.#session.run(feeds, fetches));
      countRun(this.#traffic, feeds, outputs);
      return outputs;
    } catch (error) {
      throw explainRun(error, this.#name);
    }
  }

  async release(): Promise<void> {
    if (this.#profiled) this.#session.endProfiling();
    await this.#session.release();
  }
}

/**
 * The first session of a process decides that denormals count as zero, for the thread that opens it. Threads started by that
 * one do the same: this has to come before the first of them that runs a session.
 */
export async function flushDenormals(): Promise<void> {
  const graph = new GraphBuilder();
  graph.output("y", graph.input("x", OnnxType.float, []), OnnxType.float, []);
  const settings: SessionSettings = { device: "cpu", threads: 1, folder: "." };
  await (await OnnxSession.create(encodeModel(graph.model("denormals")), "denormals", settings)).release();
}

/** Float data of an output. */
export function floats(tensor: Tensor | undefined, name: string): Float32Array {
  if (tensor?.data instanceof Float32Array) return tensor.data;
  throw new InputError(`Output "${name}" of the model is not float32`);
}

/** Int32 data of an output. */
export function int32s(tensor: Tensor | undefined, name: string): Int32Array {
  if (tensor?.data instanceof Int32Array) return tensor.data;
  throw new InputError(`Output "${name}" of the model is not int32`);
}
