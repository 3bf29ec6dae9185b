import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { formatProfile, type Profile, profileRecord } from "../../src/report/profile-report.ts";
import { cpuOperators, joinProfiles, readProfile, shapeBytes } from "../../src/runtime/session/profile.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("test");

const cuda = "CUDAExecutionProvider";
const cpu = "CPUExecutionProvider";

function node(ts: number, dur: number, operator: string, provider: string, bytes: number): object {
  const args = { op_name: operator, provider, output_size: String(bytes), input_type_shape: [{ float: [1] }] };
  return { cat: "Node", pid: 1, tid: 1, dur, ts, ph: "X", name: `${operator}_1/node_kernel_time`, args };
}

const session = (ts: number, dur: number, name: string): object => ({
  cat: "Session",
  ts,
  dur,
  ph: "X",
  name,
  args: {},
});

/** The nodes of one run of 1,000 microseconds, in the order in which they end, as ONNX Runtime writes them. */
function run(ts: number): object[] {
  return [
    node(ts + 10, 40, "MemcpyFromHost", cuda, 4096),
    node(ts + 60, 5, "Shape", cpu, 16),
    node(ts + 70, 100, "MatMul", cuda, 1 << 20),
    // The body of the If below.
    node(ts + 200, 300, "MatMul", cuda, 2 << 20),
    session(ts + 190, 320, "SequentialExecutor::Execute"),
    node(ts + 180, 400, "If", cuda, 2 << 20),
    node(ts + 600, 200, "GatherND", cpu, shapeBytes),
    node(ts + 810, 20, "MemcpyToHost", cuda, 8),
    node(ts + 840, 30, "MemcpyToHost", cuda, 512),
    session(ts, 1000, "model_run"),
  ];
}

/** One event a line, as ONNX Runtime writes them. */
async function write(events: readonly object[]): Promise<string> {
  const path = join(folder, "session_2025.json");
  await writeFile(path, `[\n${events.map((event) => JSON.stringify(event)).join(",\n")}\n]\n`);
  return path;
}

const opening = [session(4, 50, "model_loading_array"), session(60, 400, "session_initialization")];

describe("readProfile", () => {
  test("sums operators by provider, without the warm-up", async () => {
    const path = await write([...opening, ...run(1000), ...run(2000), ...run(3000)]);
    const profile = await readProfile(path, 1);
    expect(profile.runs).toBe(2);
    expect(profile.seconds).toBeCloseTo(2e-3, 9);
    expect(profile.operators.map(({ operator, provider, runs, bytes }) => [operator, provider, runs, bytes])).toEqual([
      ["MatMul", cuda, 4, 6 << 20],
      ["GatherND", cpu, 2, 2 * shapeBytes],
      ["MemcpyToHost", cuda, 4, 1040],
      ["MemcpyFromHost", cuda, 2, 8192],
      ["Shape", cpu, 2, 32],
    ]);
    expect(profile.operators[0]?.seconds).toBeCloseTo(800e-6, 9);
    expect((await readProfile(path)).operators[0]).toMatchObject({ operator: "MatMul", runs: 6 });
    expect(await readProfile(path, 3)).toMatchObject({ runs: 0, seconds: 0, operators: [], controlFlow: [] });
  });

  test("keeps control flow apart from the operators inside it", async () => {
    const { controlFlow, operators } = await readProfile(await write([...opening, ...run(1000)]));
    expect(controlFlow).toEqual([
      { operator: "If", provider: cuda, runs: 1, seconds: expect.closeTo(400e-6, 9), bytes: 2 << 20 },
    ]);
    expect(operators.reduce((sum, { seconds }) => sum + seconds, 0)).toBeCloseTo(695e-6, 9);
  });

  test("finds copies, and tells fallbacks from arithmetic on shapes by the bytes of a run", async () => {
    const profile = await readProfile(await write([...opening, ...run(1000), ...run(2000)]));
    expect(profile.copies.toDevice).toMatchObject({ runs: 2, bytes: 8192 });
    expect(profile.copies.toHost).toMatchObject({ runs: 4, bytes: 1040, seconds: expect.closeTo(100e-6, 9) });
    const { fallbacks, shapeArithmetic } = cpuOperators(profile);
    expect(fallbacks.map(({ operator }) => operator)).toEqual(["GatherND"]);
    expect(shapeArithmetic.map(({ operator }) => operator)).toEqual(["Shape"]);
  });

  test("joins sessions", async () => {
    const profile = await readProfile(await write([...opening, ...run(1000)]));
    const joined = joinProfiles([profile, profile]);
    expect(joined).toMatchObject({ runs: 2, copies: { toHost: { runs: 4 } } });
    expect(joined.controlFlow).toMatchObject([{ operator: "If", runs: 2 }]);
  });

  test("names the file that is none", async () => {
    const path = join(folder, "cut.json");
    await writeFile(path, '[\n{"cat" : "Node","name" :"a_kernel_time","ts');
    await expect(readProfile(path)).rejects.toMatchObject({
      name: "InputError",
      hint: expect.stringContaining("TMPDIR"),
    });
  });
});

describe("the report", () => {
  async function profileOn(device: string): Promise<Profile> {
    const profile = await readProfile(await write([...opening, ...run(1000), ...run(2000)]), 1);
    const traffic = { runs: 1, tensorsIn: 3, bytesIn: 3000, tensorsOut: 1, bytesOut: 1024 };
    const sessions = [{ name: "embed", traffic, profile, complete: true }];
    return { command: "loss", device, seconds: 0.5, blocking: false, sessions };
  }

  test("tells what fell back, what was copied and whose time it is", async () => {
    const text = formatProfile(await profileOn("cuda"));
    expect(text).toMatch(/Operators that fell back to the CPU:\n.*\nGatherND +CPU +1 /);
    expect(text).toContain("Arithmetic on shapes on the CPU (less than 64 KiB a run): 1 nodes, 0.01 ms");
    expect(text).toContain("to the device 1 (1 a run), 4 KiB, 0.04 ms; to the host 2 (2 a run), 520 B, 0.05 ms");
    expect(text).toContain("CUDA_LAUNCH_BLOCKING=1");
    expect(text).toMatch(/\nembed +1 +1\.00 +3 \(3\) +2\.93 KiB \(2\.93 KiB\) +1 \(1\) +1 KiB \(1 KiB\)$/);
  });

  test("calls nothing a fallback on the CPU", async () => {
    const profile = await profileOn("cpu");
    expect(formatProfile(profile)).not.toMatch(/fell back|Copies|LAUNCH/);
    expect(profileRecord(profile)).toMatchObject({ cpu_operators: null, device: "cpu" });
  });

  test("has the same in JSON, in all and by stage", async () => {
    const record = profileRecord(await profileOn("cuda"));
    const graph = {
      cpu_operators: { fallbacks: [{ operator: "GatherND" }], shape_arithmetic: [{ operator: "Shape" }] },
      copies: { to_device: { copies: 1, bytes: 4096 }, to_host: { copies: 2, copies_per_run: 2, bytes: 520 } },
      transfers: { runs: 1, in: { tensors: 3, bytes: 3000 }, out: { tensors: 1, bytes: 1024 } },
      complete: true,
    };
    expect(record).toMatchObject({ ...graph, stages: [{ name: "embed", ...graph }] });
  });
});
