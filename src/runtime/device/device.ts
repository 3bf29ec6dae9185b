/** Which device to use: asked for by name, or the fastest one that really creates a session and computes with it. */
import { RuntimeFailure } from "../../base/errors.ts";
import type { ComputeDevice, Device, DeviceList } from "../measurement.ts";
import { cudaDevice, cudaIndex } from "../session/execution-provider.ts";
import { defaultThreads } from "../session/onnx-session.ts";
import { type Trial, tryDevice } from "./device-trial.ts";
import { isLeftToCpu, type Work } from "./device-work.ts";
import { askDriver, driverLibrary, type GpuQuery } from "./gpu.ts";
import { hasLibrary, type RuntimePackage, runtimePackage } from "./native-libraries.ts";
import { explainFailure, type Lack, lacksOf } from "./provider-needs.ts";

/** What `auto` looks at, fastest first. */
const preference = ["cuda", "webgpu", "cpu"] as const;

/**
 * WebGPU was measured on one large GPU only (docs/gpu.md). An integrated one, or a driver in software, may well be slower
 * than the CPU.
 */
const onlyByName: ReadonlySet<ComputeDevice> = new Set(["webgpu"]);

export interface ChosenDevice {
  device: ComputeDevice;
  /** The device as people know it: `cuda, NVIDIA H200`. */
  title: string;
  /** Why the faster ones were not taken, one line each. */
  notes: string[];
  /** There may be a GPU, and it is left alone. */
  note?: string;
  /** There is a GPU, and the CPU it is. */
  warning?: string;
}

/** What came of looking at a device. */
export interface DeviceCheck {
  device: ComputeDevice;
  /** Empty where the device works. */
  lacks: Lack[];
  trial?: Extract<Trial, { works: true }>;
}

export interface CheckSettings {
  /** Where it is known: `auto` leaves to the CPU what would take a GPU longer. Asked only where there may be a GPU. */
  work?: (() => Promise<Work>) | undefined;
  /** Hears of a device that `auto` is about to try, if what can be known without a trial speaks for it. */
  onTrial?: ((device: ComputeDevice) => void) | undefined;
  /** How long to measure the device's speed; not at all where absent. */
  seconds?: number;
  threads?: number;
  /** Where to look for the provider's libraries: those of the installed package where absent. */
  runtime?: RuntimePackage;
}

/**
 * @throws RuntimeFailure where a device is asked for by name and does not work
 */
export async function chooseDevice(wanted: Device, settings: CheckSettings = {}): Promise<ChosenDevice> {
  if (wanted === "cpu") return { device: "cpu", title: "cpu", notes: [] };
  const { work, threads } = settings;
  const decides = wanted === "auto" && work !== undefined && (await hasLibrary(driverLibrary));
  if (decides && isLeftToCpu(await work(), threads)) {
    const note = "on the CPU: this is too little work to open a GPU for (--device cuda takes it)";
    return { device: "cpu", title: "cpu", notes: [], note };
  }
  const query = await askDriver();
  if (wanted !== "auto") {
    // A trial of CUDA takes as long as opening it, which comes next and says what is wrong as well.
    const isCuda = cudaIndex(wanted) !== undefined;
    requireWorking(isCuda ? await lookAt(wanted, query, settings) : await checkDevice(wanted, query, settings));
    return { device: wanted, title: title(wanted, query), notes: [] };
  }
  const notes: string[] = [];
  let warning: string | undefined;
  for (const device of preference) {
    // There is nothing to fall back to: the CPU needs no trial.
    if (device === "cpu") break;
    if (onlyByName.has(device)) {
      notes.push(`${device} is used only when asked for by name`);
      continue;
    }
    const check = await checkDevice(device, query, settings);
    if (check.lacks.length === 0) return { device, title: title(device, query), notes };
    notes.push(unavailability(check));
    const [gpu] = query.gpus;
    if (gpu !== undefined) {
      warning = `${gpu.name} is not used: ${reasons(check.lacks)} (indexcache doctor shows what to do)`;
    }
  }
  return { device: "cpu", title: "cpu", notes, ...(warning === undefined ? {} : { warning }) };
}

/**
 * Looks at each device of a list, which may name one more than once.
 * @throws RuntimeFailure for the first one that does not work, and where `all` finds no GPU
 */
export async function chooseDevices(wanted: DeviceList, settings: CheckSettings = {}): Promise<ChosenDevice[]> {
  const devices = wanted === "all" ? await everyGpu() : wanted;
  const distinct = [...new Set(devices)];
  // Creating a context takes a GPU seconds: side by side, and the first failure of the list is told whoever was faster.
  const outcomes = await Promise.allSettled(distinct.map((device) => chooseDevice(device, settings)));
  const chosen = outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
  return devices.map((device) => chosen[distinct.indexOf(device)] as ChosenDevice);
}

async function everyGpu(): Promise<ComputeDevice[]> {
  const { gpus, problem } = await askDriver();
  if (gpus.length > 0) return gpus.map(({ index }) => cudaDevice(index));
  throw new RuntimeFailure(`--devices all finds no GPU: ${problem}`, {
    hint: "indexcache doctor shows what works here; --device cpu does anywhere",
  });
}

function title(device: ComputeDevice, { gpus }: GpuQuery): string {
  const name = gpus.find(({ index }) => index === cudaIndex(device))?.name;
  return name === undefined ? device : `${device}, ${name}`;
}

/** What `auto` takes of devices that were checked already. */
export function automaticDevice(checks: readonly DeviceCheck[]): ComputeDevice {
  const works = (name: string): ComputeDevice | undefined =>
    checks.find(({ device, lacks }) => lacks.length === 0 && (device === name || device === `${name}:0`))?.device;
  return (
    preference
      .filter((name) => !onlyByName.has(name))
      .map(works)
      .find((device) => device !== undefined) ?? "cpu"
  );
}

/** Looks for what a device needs. */
async function lookAt(
  device: ComputeDevice,
  query: GpuQuery,
  { runtime = runtimePackage() }: CheckSettings,
): Promise<DeviceCheck> {
  return { device, lacks: await lacksOf(device, query, runtime) };
}

/** Looks for what a device needs, and where nothing is known to be missing tries it. */
export async function checkDevice(
  device: ComputeDevice,
  query: GpuQuery,
  settings: CheckSettings = {},
): Promise<DeviceCheck> {
  const { seconds = 0, threads = defaultThreads(), onTrial } = settings;
  const found = await lookAt(device, query, settings);
  if (found.lacks.length > 0) return found;
  onTrial?.(device);
  const trial = await tryDevice({ device, threads, seconds });
  return trial.works ? { device, lacks: [], trial } : { device, lacks: [explainFailure(device, trial.reason)] };
}

/** Why a device cannot be used, as a sentence. */
export function unavailability({ device, lacks }: DeviceCheck): string {
  return `${device} is not available: ${reasons(lacks)}`;
}

function requireWorking(check: DeviceCheck): void {
  if (check.lacks.length === 0) return;
  const advice = check.lacks.flatMap(({ how }) => how);
  const [only = ""] = advice;
  const doctor = `indexcache doctor --device ${check.device} shows what to do`;
  const hint = advice.length === 0 ? "" : `${advice.length === 1 ? only : doctor}; `;
  throw new RuntimeFailure(unavailability(check), { hint: `${hint}--device cpu works without` });
}

function reasons(lacks: readonly Lack[]): string {
  return lacks.map(({ what }) => what).join("; ");
}
