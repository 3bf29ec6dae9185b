/** Processes that were started, and opened the model, before the windows were known: the built program runs in them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import type { Pattern } from "../../src/pattern/pattern.ts";
import type { LossSettings } from "../../src/runtime/loss/loss-evaluator.ts";
import type { Measurement } from "../../src/runtime/measurement.ts";
import type { EarlyProcesses } from "../../src/runtime/process/early-processes.ts";
import { tinyModel } from "../cli/indexcache.ts";

const built = join(import.meta.dirname, "..", "..", "dist");
const { foreseeLosses, openLossEvaluator }: typeof import("../../src/runtime/loss/loss-evaluator.ts") = await import(
  pathToFileURL(join(built, "runtime", "loss", "loss-evaluator.js")).href
);
const start: (program: string, count: number) => EarlyProcesses = await import(
  pathToFileURL(join(built, "runtime", "process", "early-processes.js")).href
).then(
  (module: typeof import("../../src/runtime/process/early-processes.ts")) => (program, count) =>
    new module.EarlyProcesses(program, count),
);

let model: ModelFolder;
let folder: string;
let early: EarlyProcesses;
/** Of the evaluators in turn. */
let warm: (boolean | undefined)[];

/** The frame of GPUs, on the CPU. */
const settings: LossSettings = { devices: ["cpu"], dtype: "float16", threads: 1, stateBytes: 2 ** 24 };
const patterns = ["FFFFF", "FFSFF", "FSFSF"] as Pattern[];

beforeAll(async () => {
  model = await openModel(tinyModel);
});
beforeEach(() => {
  warm = [];
  folder = mkdtempSync(join(tmpdir(), "indexcache-early-"));
  writeFileSync(
    join(folder, "child.mjs"),
    `import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
const { InferenceSession } = createRequire(${JSON.stringify(join(built, "runtime", "session", "x.js"))})("onnxruntime-node");
const create = InferenceSession.create.bind(InferenceSession);
InferenceSession.create = async (...args) => {
  appendFileSync(${JSON.stringify(join(folder, "sessions"))}, process.pid + "\\n");
  return await create(...args);
};
await import(${JSON.stringify(pathToFileURL(join(built, "runtime", "loss", "loss-process.js")).href)});
`,
  );
  early = start(join(folder, "child.mjs"), 1);
});
afterEach(() => {
  early.end();
  rmSync(folder, { recursive: true });
});

/** Windows that repeat nothing of what is foreseen. */
function windowsOf(lengths: readonly number[]): Int32Array[] {
  return lengths.map((length, index) =>
    Int32Array.from({ length }, (_, position) => 3 + ((index * 977 + position * (position + 31)) % 80)),
  );
}

async function losses(
  windows: readonly Int32Array[],
  more: Partial<LossSettings>,
): Promise<Measurement["sequences"][]> {
  const evaluator = await openLossEvaluator(model, windows, { ...settings, ...more } as LossSettings);
  try {
    warm.push(evaluator.isWarm);
    const found: Measurement["sequences"][] = [];
    for (const pattern of patterns) found.push((await evaluator.evaluate(pattern, { base: patterns[0] })).sequences);
    return found;
  } finally {
    await evaluator.release();
  }
}

/** Processes of the sessions that were opened. */
function opened(): string[] {
  return readFileSync(join(folder, "sessions"), "utf8").trim().split("\n");
}

const pids = () => [...new Set(opened())];

/** Sessions that were opened in each process. */
function sessions(): number[] {
  return pids().map((pid) => opened().filter((other) => other === pid).length);
}

test("what was foreseen is not opened again, with the same losses", async () => {
  const windows = windowsOf([48, 48, 48]);
  const wanted = await losses(windows, {});
  await foreseeLosses(model, [48, 48, 48], { ...settings, early });
  expect(await losses(windows, { early })).toEqual(wanted);
  expect(sessions()).toEqual([1]);
  expect(warm).toEqual([false, true]);
});

test("other windows than were foreseen are opened as they are", async () => {
  const windows = windowsOf([30, 41, 20]);
  const wanted = await losses(windows, {});
  await foreseeLosses(model, [48, 48, 48, 48, 48], { ...settings, early });
  expect(await losses(windows, { early })).toEqual(wanted);
  expect(sessions()).toEqual([2]);
  expect(warm).toEqual([false, false]);
});

test("a second evaluator takes the processes of the first, and dead ones are not given back", async () => {
  const windows = windowsOf([48, 48]);
  const wanted = [await losses(windows, {}), await losses(windows, { objective: "kl" })];
  expect(await losses(windows, { early })).toEqual(wanted[0]);
  expect(await losses(windows, { objective: "kl", early })).toEqual(wanted[1]);
  expect(sessions()).toEqual([2]);
  for (const pid of pids()) process.kill(Number(pid), "SIGKILL");
  expect(await losses(windows, { early })).toEqual(wanted[0]);
});

test("what fails early is not told, and who dies early is started anew", async () => {
  const windows = windowsOf([48, 48]);
  const wanted = await losses(windows, {});
  for (const process of early.processes) process.foresee([{ kind: "open", path: join(folder, "no model") }]);
  expect(await losses(windows, { early })).toEqual(wanted);
  writeFileSync(join(folder, "dead.mjs"), "process.exit(3);");
  const dead = start(join(folder, "dead.mjs"), 1);
  await foreseeLosses(model, [48, 48], { ...settings, early: dead });
  expect(await losses(windows, { early: dead })).toEqual(wanted);
});
