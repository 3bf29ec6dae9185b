/** Processes that share the windows, and children that die: the built program runs in them. */
import { getEventListeners } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import type { Pattern } from "../../src/pattern/pattern.ts";
import { openLosses } from "../../src/runtime/loss/open-losses.ts";
import { ParallelLosses, type ParallelSettings } from "../../src/runtime/loss/parallel-loss.ts";
import type { ComputeDevice, EvaluateOptions, SequenceLoss } from "../../src/runtime/measurement.ts";
import { tinyModel } from "../cli/indexcache.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const child = join(import.meta.dirname, "..", "..", "dist", "runtime", "loss", "loss-process.js");

/**
 * A search's way through patterns: the baseline, candidates of a base of which the best is kept, a new base that keeps the
 * first layers, some of the windows.
 */
const evaluations: { pattern: Pattern; options: EvaluateOptions }[] = [
  ["FFFFF", "FFFFF"],
  ["FFSFF", "FFFFF"],
  ["FFFSF", "FFFFF", ["FFSFF"]],
  ["FSFSF", "FFFSF", [], [3, 0, 4]],
  ["FFSSF", "FFFSF", ["FSFSF"]],
].map(([pattern, base, keep = [], sequences]) => ({
  pattern: pattern as Pattern,
  options: {
    base: base as Pattern,
    keep: keep as Pattern[],
    ...(sequences === undefined ? {} : { sequences: sequences as number[] }),
  },
}));

/** Longer than the 7 keys that the model selects. */
const windows = Array.from({ length: 5 }, (_, index) =>
  Int32Array.from({ length: 50 + index }, (_, position) => 3 + ((index * 977 + position * (position + 31)) % 80)),
);

let model: ModelFolder;
const folder = temporaryFolder("test");
let replaced: string[];

beforeAll(async () => {
  model = await openModel(tinyModel);
});
beforeEach(() => {
  replaced = [];
});

/** The child's program and a few lines more, which see how many children were started, this one included. */
function program(lines = ""): string {
  const path = join(folder, "child.mjs");
  const pids = JSON.stringify(join(folder, "pids"));
  writeFileSync(
    path,
    `import { appendFileSync, readFileSync } from "node:fs";
     appendFileSync(${pids}, process.pid + "\\n");
     const started = readFileSync(${pids}, "utf8").trim().split("\\n").length;
     await import(${JSON.stringify(pathToFileURL(child).href)});
     ${lines}`,
  );
  return path;
}

/** Of every child that was started, in order. */
const pids = (): number[] => readFileSync(join(folder, "pids"), "utf8").trim().split("\n").map(Number);

function open(devices: ComputeDevice[], settings: Partial<ParallelSettings> = {}): Promise<ParallelLosses> {
  return ParallelLosses.open(model, windows, {
    devices,
    dtype: "float32",
    threads: 1,
    stateBytes: 2 ** 30,
    onReplacement: (words) => replaced.push(words),
    ...settings,
    program: settings.program ?? program(),
  });
}

/** Losses of the whole search; `disturb` is called while evaluation `index` is under way. */
async function search(
  losses: ParallelLosses,
  disturb: (index: number) => void = () => undefined,
): Promise<SequenceLoss[][]> {
  const found: SequenceLoss[][] = [];
  for (const [index, { pattern, options }] of evaluations.entries()) {
    const evaluated = losses.evaluate(pattern, options);
    disturb(index);
    found.push((await evaluated).sequences);
  }
  return found;
}

/** What is found where nobody disturbs, by settings. */
const undisturbedBy = new Map<string, SequenceLoss[][]>();

async function undisturbed(settings: Partial<ParallelSettings> = {}): Promise<SequenceLoss[][]> {
  const key = JSON.stringify(settings);
  const known = undisturbedBy.get(key);
  if (known !== undefined) return known;
  const losses = await open(["cpu", "cpu"], settings);
  try {
    const found = await search(losses);
    undisturbedBy.set(key, found);
    return found;
  } finally {
    await losses.release();
    rmSync(join(folder, "pids"));
  }
}

describe("processes of their own", () => {
  test("give the losses of one process, in the order of the windows", async () => {
    const alone = await openLosses(model, windows, { device: "cpu", dtype: "float32", threads: 1, stateBytes: 0 });
    const wanted: SequenceLoss[][] = [];
    for (const { pattern, options } of evaluations) {
      const { sequences } = await alone.evaluate(pattern, {});
      wanted.push(options.sequences?.map((index) => sequences[index] as SequenceLoss) ?? sequences);
    }
    await alone.release();
    expect(await undisturbed()).toEqual(wanted);
  });

  test("compute in float16 too, each in batches of its own windows", async () => {
    const losses = await open(["cpu", "cpu"], { dtype: "float16" });
    expect(losses.plan).toEqual(expect.arrayContaining(["2 processes of 1 thread; each:"]));
    expect(losses.plan.join("\n")).toContain("float16");
    const found = await search(losses);
    await losses.release();
    for (const [index, full] of (await undisturbed()).entries()) {
      expect(found[index]).toHaveLength(full.length);
      for (const [place, { loss }] of full.entries()) expect(found[index]?.[place]?.loss).toBeCloseTo(loss, 1);
    }
  });

  test("are no more than there are windows", async () => {
    const losses = await open(Array<ComputeDevice>(7).fill("cpu"));
    expect(pids()).toHaveLength(5);
    expect(losses.plan.at(-1)).toBe("devices without a sequence of their own: 2");
    await losses.release();
  });

  test("leave no listener on the signal", async () => {
    const losses = await open(["cpu", "cpu"]);
    const { signal } = new AbortController();
    for (const { pattern, options } of evaluations) {
      const evaluated = losses.evaluate(pattern, { ...options, signal });
      expect(getEventListeners(signal, "abort")).toHaveLength(1);
      await evaluated;
      expect(getEventListeners(signal, "abort")).toHaveLength(0);
    }
    await losses.release();
  });

  test("answer for the pattern at hand after an interruption, not for the one before", async () => {
    const losses = await open(["cpu", "cpu"]);
    const [first, , last] = evaluations.map(({ pattern }) => pattern);
    const controller = new AbortController();
    const interrupted = losses.evaluate(first as Pattern, { signal: controller.signal });
    controller.abort();
    await expect(interrupted).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    expect(getEventListeners(controller.signal, "abort")).toHaveLength(0);
    const { sequences } = await losses.evaluate(last as Pattern, {});
    expect(sequences).toEqual((await losses.evaluate(last as Pattern, {})).sequences);
    expect(sequences).not.toEqual((await losses.evaluate(first as Pattern, {})).sequences);
    await losses.release();
  });

  test("an error that a child answers with is thrown as it is, and the child stays", async () => {
    const missing = { ...model, path: join(folder, "none") };
    await expect(
      ParallelLosses.open(missing, windows, {
        devices: ["cpu", "cpu"],
        dtype: "float32",
        threads: 1,
        stateBytes: 0,
        program: program(),
      }),
    ).rejects.toMatchObject({ code: "E_INPUT" });
    expect(pids().length).toBeLessThanOrEqual(2);
  });
});

describe("a child that dies", () => {
  test.each<Partial<ParallelSettings>>([{}, { dtype: "float32", top: 16 }, { dtype: "float16", top: 16 }])(
    "is replaced, and neither loss nor divergence moves by a bit (%o)",
    async (settings) => {
      const wanted = await undisturbed(settings);
      expect(wanted.flat().every(({ kl }) => (kl === undefined) === (settings.top === undefined))).toBe(true);
      const losses = await open(["cpu", "cpu"], settings);
      const found = await search(losses, (index) => {
        // A candidate of the first base, then one of a base that the new child has never seen; the last one is replaced itself.
        if (index === 1) process.kill(pids()[0] as number, "SIGKILL");
        if (index >= 3) process.kill(pids().at(-1) as number, "SIGKILL");
      });
      await losses.release();
      expect(found).toEqual(wanted);
      expect(pids()).toHaveLength(5);
      expect(replaced).toHaveLength(3);
      for (const words of replaced)
        expect(words).toMatch(/^worker [12] of 2 on cpu died \(killed by SIGKILL\) and was/);
    },
  );

  test("in the middle of a run and between two runs is replaced alike", async () => {
    const wanted = await undisturbed();
    // The first two children die while they follow to the second base.
    const middle = program(`
      let asked = 0;
      // The run gives way between layers: this is after the first of them.
      const die = () => setImmediate(() => setImmediate(() => process.kill(process.pid, "SIGKILL")));
      process.on("message", ({ kind }) => {
        if (started <= 2 && kind === "evaluate" && ++asked === 4) die();
      });`);
    const losses = await open(["cpu", "cpu"], { program: middle });
    expect(await search(losses)).toEqual(wanted);
    expect(replaced).toHaveLength(2);
    for (const pid of pids().slice(2)) process.kill(pid, "SIGKILL");
    await vi.waitFor(() => {
      for (const pid of pids().slice(2)) expect(() => process.kill(pid, 0)).toThrow("ESRCH");
    });
    expect(await search(losses)).toEqual(wanted);
    expect(pids()).toHaveLength(6);
    await losses.release();
  });

  test("is replaced twice while it opens its windows", async () => {
    const losses = await open(["cpu"], { program: program("if (started < 3) process.kill(process.pid, 'SIGABRT');") });
    expect(replaced).toEqual(Array(2).fill("worker 1 of 1 on cpu died (killed by SIGABRT) and was replaced"));
    await losses.release();
  });

  test("a third time over one request ends the run, with how it died and what helps", async () => {
    const dies = (words: string): string =>
      program(`process.on("message", ({ kind }) => { if (kind === "evaluate") ${words}; });`);
    const onCpu = await open(["cpu"], { program: dies("process.exit(7)") });
    await expect(onCpu.evaluate(evaluations[0]?.pattern as Pattern, {})).rejects.toMatchObject({
      code: "E_RUNTIME",
      message: "Worker 1 of 1 on cpu died 3 times in a row (exit code 7)",
      hint: expect.stringContaining("fewer workers"),
    });
    expect(pids()).toHaveLength(3);
    await onCpu.release();
    // The hint of a GPU: its child does not get as far as needing one.
    await expect(open(["cpu", "cuda:1"], { program: program("process.exit(9);") })).rejects.toMatchObject({
      code: "E_RUNTIME",
      message: expect.stringMatching(/^Worker [12] of 2 on (cpu|cuda:1) died 3 times in a row \(exit code 9\)$/),
    });
    await expect(open(["cuda:1"], { program: program("process.exit(9);") })).rejects.toMatchObject({
      message: "Worker 1 of 1 on cuda:1 died 3 times in a row (exit code 9)",
      hint: expect.stringMatching(/--dtype float16.*--resume --device cpu.*journal/),
    });
  });
});
