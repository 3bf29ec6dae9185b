/**
 * Every command that computes, on a GPU and on the CPU of the same machine: exit codes and seconds, process start and
 * loading included, and the losses and patterns that have to agree. Prints a line for each run as it ends and a table at
 * the end; exits with 1 where a command failed, results differ, or a device is slower than the CPU.
 *
 *   node tools/gpu/every-command.js models/demo -c calibration/demo.jsonl --devices auto
 *   node tools/gpu/every-command.js MIDDLE -c calibration/demo.jsonl --prompt 6000
 *
 * MIDDLE is a random model of 50 million parameters for which a GPU is worth opening, with the demo's tokenizer:
 *
 *   python tools/gpu/random_model.py MIDDLE --vocab 2048 --hidden 1024 --heads 16 --q-lora-rank 512 --kv-lora-rank 256 \
 *     --qk-nope-head-dim 96 --qk-rope-head-dim 32 --v-head-dim 128 --index-n-heads 16 --index-head-dim 64 --index-topk 256 \
 *     --max-position-embeddings 8192 && cp models/demo/tokenizer*.json models/demo/chat_template.jinja MIDDLE
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readArguments } from "../arguments.js";

const { values, positionals } = readArguments(
  {
    calibration: { type: "string", required: true, short: "c" },
    out: { type: "string", default: "every-command" },
    devices: { type: "string", default: "auto,cuda" },
    // What only exists in float32 is run in that.
    dtypes: { type: "string", default: "float16" },
    commands: { type: "string", default: "loss,search,eval,run,analyze,bench,report,distill" },
    sequences: { type: "string", default: "8" },
    // Layers are compared on the CPU, whatever the device.
    analyzed: { type: "string", default: "4" },
    samples: { type: "string", default: "4" },
    steps: { type: "string", default: "4" },
    "sequence-length": { type: "string", default: "1024" },
    prompt: { type: "string", default: "1000" },
    contexts: { type: "string", default: "1024" },
    retain: { type: "string", default: "1/4" },
    strategy: { type: "string", default: "greedy" },
    limit: { type: "string", default: "120" },
    // For all of it: what has not begun by then is not run, and said to be.
    seconds: { type: "string", default: "3600" },
  },
  { named: ["MODEL"] },
);
const [model] = positionals;
const program = fileURLToPath(new URL("../../bin/indexcache.js", import.meta.url));
const textOf = (sequences) => [
  ...["-c", values.calibration, "--sequences", sequences],
  ...["--sequence-length", values["sequence-length"]],
];
const text = textOf(values.sequences);
/** Of a mean loss, in nats (docs/gpu.md). */
const tolerance = { float32: 1e-4, float16: 1e-2 };
/** A process start wanders by this much. */
const noise = { share: 0.05, seconds: 0.15 };
mkdirSync(values.out, { recursive: true });

/** What a command is given, and the number or letters of its result that every device has to agree in. */
const commands = {
  loss: {
    args: (at) => [model, ...text, ...at.device, "--json"],
    compared: (result) => result.loss,
  },
  search: {
    args: (at) => [
      model,
      ...text,
      "--retain",
      values.retain,
      "--strategy",
      values.strategy,
      "-o",
      at.file("pattern.json"),
      "--fresh",
      "--json",
      ...at.device,
    ],
    compared: (result) => result.frontier?.[0]?.loss ?? result.search?.frontier?.[0]?.loss,
    letters: (result) => result.index_topk_pattern,
  },
  eval: {
    args: (at) => [
      model,
      "-p",
      at.file("pattern.json"),
      "--suite",
      "ruler-core",
      "--tasks",
      "niah_single_1,vt",
      "--lengths",
      values["sequence-length"],
      "--samples",
      values.samples,
      "--max-new-tokens",
      "16",
      "-o",
      at.file("eval.json"),
      "--fresh",
      "--json",
      ...at.device,
    ],
  },
  run: {
    args: (at) => [
      model,
      "-p",
      at.file("pattern.json"),
      "--prompt-file",
      prompt(),
      "-n",
      "64",
      "--ignore-eos",
      "--json",
      ...at.device,
    ],
  },
  analyze: {
    args: (at) => [
      model,
      ...textOf(values.analyzed),
      "--retain",
      values.retain,
      "-o",
      at.file("analysis.json"),
      "--fresh",
      "--json",
      ...at.device,
    ],
    float32Only: true,
  },
  bench: {
    args: (at) => [
      model,
      "-p",
      at.file("pattern.json"),
      "--contexts",
      values.contexts,
      "-o",
      at.file("bench.json"),
      "--json",
      ...at.device,
    ],
  },
  distill: {
    args: (at) => [
      model,
      "-p",
      "uniform:4",
      ...text,
      "--steps",
      values.steps,
      "--batch",
      "4",
      "-o",
      at.file("distilled"),
      "--fresh",
      "--json",
      // It trains in float32 and has no --dtype.
      "--device",
      at.name,
    ],
    float32Only: true,
  },
  report: {
    args: (at) => [
      ...["pattern.json", "analysis.json", "bench.json", "eval.json"].map(at.file).filter((file) => existsSync(file)),
      "-o",
      at.file("report"),
    ],
  },
};

/** A prompt of about so many tokens: the documents of the text, cut at three letters a token. */
function prompt() {
  const file = join(values.out, "prompt.txt");
  if (!existsSync(file)) {
    const documents = readFileSync(values.calibration, "utf8").split("\n").filter(Boolean);
    const letters = documents.map((line) => JSON.parse(line).text).join("\n");
    writeFileSync(file, letters.slice(0, 3 * Number(values.prompt)));
  }
  return file;
}

const secondsLeft = () => Number(values.seconds) - performance.now() / 1000;

/** Seconds of one run and what became of it, as printed at once: the rest may never end. */
function once(name, command, at) {
  const row = run(name, command, at);
  console.log(JSON.stringify(row));
  return row;
}

function run(name, command, at) {
  if (name === "distill") rmSync(at.file("distilled"), { recursive: true, force: true });
  const started = performance.now();
  const { status, error, stdout, stderr } = spawnSync(process.execPath, [program, name, ...command.args(at)], {
    encoding: "utf8",
    timeout: Math.round(1000 * Math.max(1, Math.min(Number(values.limit), secondsLeft()))),
    killSignal: "SIGKILL",
    maxBuffer: 2 ** 28,
  });
  const seconds = Number(((performance.now() - started) / 1000).toFixed(2));
  writeFileSync(at.file(`${name}.txt`), `${stdout}\n--- stderr\n${stderr}`);
  const row = { command: name, device: at.name, dtype: at.dtype, status: error?.code ?? status, seconds };
  if (/^on the CPU: /m.test(stderr)) row.on = "cpu";
  // A verdict of its own gate is no failure of the device.
  if (row.status !== 0 && !(["eval", "distill"].includes(name) && row.status === 1)) {
    row.last = stderr.trim().split("\n").slice(-3).join(" | ").slice(0, 400);
    return row;
  }
  if (command.compared) row.result = command.compared(JSON.parse(stdout));
  if (command.letters) row.letters = command.letters(JSON.parse(stdout));
  return row;
}

/** The place of a run: a device and a dtype. */
const placeOf = (device, dtype) => ({
  dtype,
  name: device,
  device: ["--device", device, ...(dtype === "float32" ? [] : ["--dtype", dtype])],
  file: (name) => join(values.out, `${device.replace(":", "-")}-${dtype}-${name}`),
});

const isSlower = (row, cpu) => row.seconds > cpu.seconds * (1 + noise.share) + noise.seconds;
const faster = (row, again) => (again.last === undefined && again.seconds < row.seconds ? again : row);

const rows = [];
const doctor = { args: () => ["--json"] };
for (const name of ["doctor", ...values.commands.split(",")]) {
  if (secondsLeft() < 5) {
    console.log(`${name} was not run: --seconds ${values.seconds} are over`);
    continue;
  }
  const command = commands[name] ?? doctor;
  const places = values.devices.split(",").flatMap((device) => {
    const dtypes = device.startsWith("cuda") && !command.float32Only ? values.dtypes.split(",") : ["float32"];
    return dtypes.map((dtype) => placeOf(device, dtype));
  });
  const cpuPlace = placeOf("cpu", "float32");
  let cpu = once(name, command, cpuPlace);
  const own = [];
  // The doctor looks at every device.
  for (const at of name === "doctor" ? [] : places) {
    let row = once(name, command, at);
    // A single run wanders: each has a second chance.
    if (isSlower(row, cpu) && row.last === undefined && name !== "report") {
      row = faster(row, once(name, command, at));
      cpu = faster(cpu, once(name, command, cpuPlace));
    }
    own.push(row);
  }
  rows.push(cpu, ...own);
}

let failed = rows.some(({ last }) => last !== undefined);
for (const name of new Set(rows.map(({ command }) => command))) {
  const own = rows.filter(({ command }) => command === name);
  const [cpu] = own;
  const cells = own.map((row) => {
    if (row.last !== undefined) return `${row.device} ${row.dtype} FAILED after ${row.seconds} s (${row.status})`;
    const off = cpu.result === undefined || row.result === undefined ? 0 : Math.abs(row.result - cpu.result);
    const differs = !(off <= tolerance[row.dtype]) || (row.dtype === "float32" && row.letters !== cpu.letters);
    const slower = name !== "report" && isSlower(row, cpu);
    failed ||= differs || slower;
    const ratio = row === cpu ? "" : ` (${(cpu.seconds / row.seconds).toFixed(2)}x)`;
    const where = row.on === undefined ? row.device : `${row.device} on ${row.on}`;
    return `${where} ${row.dtype} ${row.seconds} s${ratio}${slower ? " SLOWER" : ""}${differs ? ` DIFFERS by ${off}` : ""}`;
  });
  console.log(`${name.padEnd(8)} ${cells.join("; ")}`);
}
process.exit(failed ? 1 : 0);
