/** Arguments and options that several commands share, so that they are spelled and explained once. */
import { fileURLToPath } from "node:url";
import { type Command, InvalidArgumentError } from "commander";
import { largestSizes } from "../../checkpoint/config/config-schema.ts";
import type { ComputeDevice, Device, DeviceList } from "../../runtime/measurement.ts";
import { parseDevice } from "../../runtime/session/execution-provider.ts";
import { choice, type Flags, group, option, suggest } from "./declared-option.ts";

/** Two folders up from `src/cli` and from `dist/cli` alike. */
const packageFile = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** The package, or a checkout of it. */
export const packageFolder = packageFile("");

/** The trained model that comes with the package. */
export const demoModel = packageFile("models/demo");

/** Its calibration set; results call it by `demoCalibrationName`, the same on every machine. */
export const demoCalibration = packageFile("calibration/demo.jsonl");

export const demoCalibrationName = "indexcache:calibration/demo.jsonl";

/** Text of the same kind that no search has seen. */
export const heldOutText = packageFile("calibration/held-out.jsonl");

/** The Python kit for serving engines. */
export const kitFolder = packageFile("tools/kit");

/** Patterns that were published, with where they come from. */
export const publishedPatterns = packageFile("patterns");

export function addModelArgument(command: Command): Command {
  return command.argument(
    "[model]",
    "folder of a checkpoint, one that `indexcache export` wrote, or owner/name in the Hugging Face cache (default: the demo model of the package)",
  );
}

/** Parses the name of a device. */
function deviceName(text: string): Device {
  const device = parseDevice(text);
  if (device === undefined)
    throw new InvalidArgumentError("It must be auto, cpu, webgpu, cuda or cuda:N (cuda:0, ...).");
  return device;
}

/** Parses the names of several devices. */
function deviceList(text: string): DeviceList {
  if (text === "all") return text;
  return text.split(",").map((name): ComputeDevice => {
    const device = parseDevice(name.trim());
    if (device !== undefined && device !== "auto") return device;
    throw new InvalidArgumentError(
      "It must be all, or names with commas between: cuda, cuda:N (cuda:0, ...), cpu or webgpu.",
    );
  });
}

/** Parses a whole number from 0 up. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError("It must be a whole number.");
  return value;
}

/** Parses a whole number from 1 up. */
export function positiveNumber(text: string): number {
  const value = wholeNumber(text);
  if (value === 0) throw new InvalidArgumentError("It must be 1 or more.");
  return value;
}

/** Parses a whole number from 1 to `largest`. */
export function numberUpTo(largest: number): (text: string) => number {
  return (text) => {
    const value = positiveNumber(text);
    if (value > largest) throw new InvalidArgumentError(`It must be at most ${largest.toLocaleString("en-US")}.`);
    return value;
  };
}

/** Parses a number of processes. What the machine has cores for is fewer: `inputs.ts` limits it to those. */
export const workerCount = numberUpTo(256);

/** Parses how many of something are to be made or drawn: beyond it no run ends, and lists of results fill the memory. */
export const repeatCount = numberUpTo(1_000_000);

/** Parses a number of layers. */
export const layerCount = numberUpTo(largestSizes.layers);

/** Parses a number. */
export function decimalNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("It must be a number.");
  return value;
}

/** What the rule of engines that `freq:N` names begins with. */
export function offsetOption() {
  return option("--offset <n>", "index_skip_topk_offset of freq:N", wholeNumber, 2);
}

/** Of a pattern in the form of any command. */
export const patternOptions = group(
  "Pattern:",
  option(
    "-p, --pattern <pattern>",
    "a pattern file (p.json, or p.json@1/2 for one of its sizes), an F/S string, full, uniform:N (FSSS for 4) or freq:N (the engines' rule, FFSSSF for 4)",
    "full",
  ),
  offsetOption(),
);

export type PatternFlags = Flags<typeof patternOptions>;

/** How the text of `-c` is read. */
export const textOptions = group(
  "Text:",
  option(
    "--text-column <name>",
    "field or column that holds the text (default: as the rows' shape tells, docs/data.md)",
  ),
  option("--split <name>", "only the files of this split in a folder or zip: train, test or validation"),
  option(
    "--sequence-length <n>",
    "tokens of a sequence (default: a multiple of index_topk, at least 4 x it and about 1024, as far as the window goes)",
    wholeNumber,
  ),
  option("--sequences <n>", "use only this many sequences, chosen by --seed (default: all)", wholeNumber),
  option("--seed <n>", "seed of every random choice", wholeNumber, 0),
  option("--no-pack", "one sequence a document, instead of documents one after the other"),
);

export type TextFlags = Flags<typeof textOptions>;

/** Of commands that take one set of text; those that take several have `mixOptions`. */
export const calibrationOptions = group(
  "Text:",
  option(
    "-c, --calibration <path>",
    "text, JSON, JSONL, CSV, TSV or Parquet, packed or not, or a folder or zip of them (default, for the demo model alone: the set of the package)",
  ),
  ...textOptions,
);

/** `--device`; what it is for differs between commands. */
export function deviceOption(purpose: string) {
  const declared = option(
    "--device <name>",
    `${purpose}: auto, cpu, webgpu, cuda or cuda:N for GPU N`,
    deviceName,
    "auto",
  );
  return suggest(declared, ["auto", "cpu", "webgpu", "cuda", "cuda:0"]);
}

export const deviceOptions = group(
  "Where it computes:",
  deviceOption("where to compute"),
  option("--threads <n>", "CPU threads (default: all cores)", positiveNumber),
);

export type DeviceFlags = Flags<typeof deviceOptions>;

/** For commands whose numbers depend on it. */
export const dtypeOptions = group(
  "Where it computes:",
  choice(
    "--dtype <name>",
    "weights and activations; scores, softmax and norms stay float32",
    ["float32", "float16"],
    "float32",
  ),
);

export type DtypeFlags = Flags<typeof dtypeOptions>;

/** `--devices`, in the place of `--device` and `--workers`. */
export function devicesOption(purpose: string) {
  return option("--devices <list>", `${purpose}: cuda:0,cuda:1 or all GPUs: all`, deviceList).conflicts([
    "device",
    "workers",
  ]);
}

/** For commands that evaluate many sequences. */
export const workersOptions = group(
  "Where it computes:",
  option(
    "--workers <n>",
    "processes that share the sequences (default: one a thread, as far as memory allows)",
    workerCount,
  ),
  devicesOption("several devices share the sequences, a process each"),
);

export type WorkerFlags = Flags<typeof workersOptions>;

const printed = "What it prints:";
export const jsonOptions = group(printed, option("--json", "print the result as JSON"));
export const verbosityOptions = group(
  printed,
  option("-v, --verbose", "say more on stderr: the memory plan, devices, files"),
  option("-q, --quiet", "say nothing on stderr but warnings and errors"),
);
export const outputOptions = [...jsonOptions, ...verbosityOptions] as const;

export type OutputFlags = Flags<typeof outputOptions>;
