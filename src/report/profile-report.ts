/** What `--profile` tells: where the time goes, what runs in the wrong place, and what is copied. */
import { toolVersion } from "../base/version.ts";
import {
  type Copies,
  cpuOperators,
  joinProfiles,
  type OperatorProfile,
  shapeBytes,
} from "../runtime/session/profile.ts";
import type { RecordedSession } from "../runtime/session/recording.ts";
import { noTraffic, type Traffic } from "../runtime/session/traffic.ts";
import { formatBytes, formatCount, formatDuration } from "./quantities.ts";
import { formatTable, left, right } from "./text-table.ts";

export interface Profile {
  command: "loss" | "run";
  device: string;
  /** Time of the work as the command measures it. */
  seconds: number;
  /** Kernels end with their node: `CUDA_LAUNCH_BLOCKING` is set. */
  blocking: boolean;
  sessions: readonly RecordedSession[];
}

/** The file of `--profile FILE`. */
export type ProfileRecord = ReturnType<typeof profileRecord>;

export function profileRecord({ command, device, seconds, blocking, sessions }: Profile) {
  return {
    tool: { version: toolVersion },
    command,
    device,
    /** Whether the first evaluation is left out. */
    warm_up: command === "loss",
    /** JavaScript included. */
    work_seconds: seconds,
    launch_blocking: blocking,
    ...graphRecord(sessions, device),
    stages: sessions.map((session) => ({ name: session.name, ...graphRecord([session], device) })),
  };
}

function graphRecord(sessions: readonly RecordedSession[], device: string) {
  const joined = joinProfiles(sessions.map(({ profile }) => profile));
  const traffic = joinTraffic(sessions);
  const { fallbacks, shapeArithmetic } = cpuOnDevice(sessions);
  const copies = ({ runs, seconds, bytes }: OperatorProfile) => ({
    copies: runs,
    copies_per_run: ratio(runs, joined.runs),
    seconds,
    bytes,
  });
  const transfer = (tensors: number, bytes: number) => ({
    tensors,
    bytes,
    tensors_per_run: ratio(tensors, traffic.runs),
    bytes_per_run: ratio(bytes, traffic.runs),
  });
  return {
    /** Of the graph's runs; those of the operators and what lies between them. */
    seconds: joined.seconds,
    operators: joined.operators.map(operatorRecord),
    control_flow: joined.controlFlow.map(operatorRecord),
    /** Null on the CPU, where nothing can fall back. */
    cpu_operators:
      device === "cpu"
        ? null
        : { fallbacks: fallbacks.map(operatorRecord), shape_arithmetic: shapeArithmetic.map(operatorRecord) },
    copies: { to_device: copies(joined.copies.toDevice), to_host: copies(joined.copies.toHost) },
    transfers: {
      runs: traffic.runs,
      in: transfer(traffic.tensorsIn, traffic.bytesIn),
      out: transfer(traffic.tensorsOut, traffic.bytesOut),
    },
    /** False where ONNX Runtime has stopped writing events: operators and copies lack the last runs. */
    complete: sessions.every(({ complete }) => complete),
  };
}

function operatorRecord({ operator, provider, runs, seconds, bytes }: OperatorProfile) {
  return { operator, provider, runs, seconds, output_bytes: bytes };
}

/** The table. */
export function formatProfile({ command, device, seconds, blocking, sessions }: Profile): string {
  const joined = joinProfiles(sessions.map(({ profile }) => profile));
  const total = joined.operators.reduce((sum, entry) => sum + entry.seconds, 0);
  const work = command === "loss" ? "one evaluation after one that warmed up" : "the whole generation";
  const parts = [
    `Profile on ${device}, ${work}: ${formatDuration(seconds)}, of which ${formatDuration(joined.seconds)} in ONNX Runtime`,
    formatOperators(joined.operators, total),
  ];
  if (joined.controlFlow.length > 0) {
    parts.push(
      `Control flow, whose time is that of the operators inside it (if nested, in both):\n${formatOperators(joined.controlFlow)}`,
    );
  }
  if (device !== "cpu") {
    parts.push(formatCpuOperators(sessions), formatCopies(joined.copies, joined.runs), timeNote(device, blocking));
  }
  parts.push(`Between JavaScript and ONNX Runtime:\n${formatTraffic(sessions)}`);
  if (!sessions.every(({ complete }) => complete)) {
    parts.push("ONNX Runtime has reached its limit of events: operators and copies lack the last runs.");
  }
  return parts.join("\n\n");
}

/** @param total seconds that shares are of; without it there are none */
function formatOperators(operators: readonly OperatorProfile[], total?: number): string {
  return formatTable(operators, [
    left("Operator", ({ operator }) => operator),
    left("Provider", ({ provider }) => providerName(provider)),
    right("Runs", ({ runs }) => formatCount(runs)),
    right("Milliseconds", ({ seconds }) => milliseconds(seconds)),
    right("Output", ({ bytes }) => formatBytes(bytes)),
    right(total === undefined ? "" : "Share", ({ seconds }) =>
      total === undefined || total === 0 ? "" : `${((100 * seconds) / total).toFixed(1)}%`,
    ),
  ]);
}

function formatCpuOperators(sessions: readonly RecordedSession[]): string {
  const { fallbacks, shapeArithmetic } = cpuOnDevice(sessions);
  const runs = shapeArithmetic.reduce((sum, entry) => sum + entry.runs, 0);
  const seconds = shapeArithmetic.reduce((sum, entry) => sum + entry.seconds, 0);
  const small = `Arithmetic on shapes on the CPU (less than ${formatBytes(shapeBytes)} a run): ${formatCount(runs)} nodes, ${milliseconds(seconds)} ms`;
  return fallbacks.length === 0
    ? `No operator fell back to the CPU.\n${small}`
    : `Operators that fell back to the CPU:\n${formatOperators(fallbacks)}\n${small}`;
}

function formatCopies({ toDevice, toHost }: Copies, graphRuns: number): string {
  const describe = ({ runs, bytes, seconds }: OperatorProfile): string =>
    `${formatCount(runs)} (${perRun(runs, graphRuns)} a run), ${formatBytes(bytes)}, ${milliseconds(seconds)} ms`;
  return `Copies inside the graph: to the device ${describe(toDevice)}; to the host ${describe(toHost)}`;
}

function timeNote(device: string, blocking: boolean): string {
  if (blocking) return "Times are those of the kernels: CUDA_LAUNCH_BLOCKING is set.";
  const advice = device === "webgpu" ? "" : ": set CUDA_LAUNCH_BLOCKING=1 in the environment to see them at their own";
  return `Times are the host's. Kernels outlast their node, and the node that waits for them gets their time${advice}.`;
}

function formatTraffic(sessions: readonly RecordedSession[]): string {
  const graphs = sessions.map(({ name, traffic, profile }) => ({ name, ...traffic, seconds: profile.seconds }));
  const seconds = graphs.reduce((sum, graph) => sum + graph.seconds, 0);
  const all = { name: "in all", ...joinTraffic(sessions), seconds };
  const tensors = (count: number, runs: number): string => `${formatCount(count)} (${perRun(count, runs)})`;
  const bytes = (count: number, runs: number): string =>
    `${formatBytes(count)} (${formatBytes(Math.round(ratio(count, runs)))})`;
  return formatTable(graphs.length > 1 ? [...graphs, all] : graphs, [
    left("Graph", ({ name }) => name),
    right("Runs", ({ runs }) => formatCount(runs)),
    right("Milliseconds", (graph) => milliseconds(graph.seconds)),
    right("Tensors in (a run)", ({ tensorsIn, runs }) => tensors(tensorsIn, runs)),
    right("Bytes in (a run)", ({ bytesIn, runs }) => bytes(bytesIn, runs)),
    right("Tensors out (a run)", ({ tensorsOut, runs }) => tensors(tensorsOut, runs)),
    right("Bytes out (a run)", ({ bytesOut, runs }) => bytes(bytesOut, runs)),
  ]);
}

/** Stages have their own numbers of runs, so what is small is decided for each of them. */
function cpuOnDevice(sessions: readonly RecordedSession[]): ReturnType<typeof cpuOperators> {
  const each = sessions.map(({ profile }) => ({ profile, ...cpuOperators(profile) }));
  const join = (kind: "fallbacks" | "shapeArithmetic"): OperatorProfile[] =>
    joinProfiles(each.map((entry) => ({ ...entry.profile, operators: entry[kind], controlFlow: [] }))).operators;
  return { fallbacks: join("fallbacks"), shapeArithmetic: join("shapeArithmetic") };
}

function joinTraffic(sessions: readonly RecordedSession[]): Traffic {
  const all = noTraffic();
  for (const { traffic } of sessions) {
    for (const key of Object.keys(all) as (keyof Traffic)[]) all[key] += traffic[key];
  }
  return all;
}

function ratio(count: number, runs: number): number {
  return runs === 0 ? 0 : count / runs;
}

function perRun(count: number, runs: number): string {
  const value = ratio(count, runs);
  return value < 100 ? String(Number(value.toPrecision(3))) : formatCount(value);
}

function milliseconds(seconds: number): string {
  return (seconds * 1000).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

function providerName(provider: string): string {
  return provider.replace(/ExecutionProvider$/, "");
}
