/** Words and numbers on the command line. */
import { mkdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { demoModel, tinyModel, writeIds } from "../../cli/indexcache.ts";
import { namesIn, runCaptured } from "../captured-command.ts";
import { fuzzClass } from "../fuzz-class.ts";

const values = [
  ...[
    "",
    " ",
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "1e9",
    "1e-300",
    "1e309",
    "NaN",
    "Infinity",
    "-0",
    "0x10",
    "١",
    "9".repeat(400),
  ],
  ...[
    "__proto__",
    "constructor",
    "toString",
    "full",
    "F",
    "S",
    "FFFFF",
    "FSSSS",
    "fsfsf",
    "uniform:0",
    "freq:1e9",
    "uniform:99999999999999999999",
  ],
  ...[
    "\u001b[2J\u001b]0;x\u0007",
    "a\0b",
    "a\nb",
    "\u202egnp",
    "x".repeat(100_000),
    "$(id)",
    "%s%n",
    "../..",
    "/dev/null",
    ".",
    "-",
    "--",
    "--help",
    "cuda",
    "float64",
  ],
  ...[
    "1/0",
    "0/1",
    "2/1",
    "1/4",
    "1,2,,3",
    ",",
    "@",
    "FFFFF@2",
    "p.json@",
    "http://[",
    "ids.jsonl",
    "{}",
    "[",
    '{"index_topk_pattern":"FS"}',
    "$".repeat(5000),
  ],
];

const model = [tinyModel, "-c", "ids.jsonl"];
const measured = [...model, "--sequence-length", "24", "--sequences", "1", "--threads", "1", "--workers", "1"];

const oneItem = ["--tasks", "niah_single_1", "--lengths", "512", "--samples", "1", "--no-cache", "--workers", "1"];

/** `V` is the value; options that are given twice take the last. */
const lines: readonly (readonly string[])[] = [
  ["V"],
  ["pattern", "V"],
  ["pattern", "V", "--layers", "8"],
  ["pattern", "freq:4", "--layers", "V"],
  ["pattern", "freq:4", "--layers", "8", "--offset", "V"],
  ["pattern", "FSFSFSFS", "--for", "V"],
  ["pattern", "FSFSFSFS", "--for", "vllm", "--engine-version", "V"],
  ["pattern", "V", "--check", "--layers", "8"],
  ["pattern", "FSFSFSFS", "--model", "V"],
  ["inspect", "V"],
  ["report", "V"],
  ["loss", "V", "-c", "ids.jsonl"],
  ["loss", tinyModel, "-c", "V"],
  ...[
    "--sequence-length",
    "--sequences",
    "--seed",
    "--threads",
    "--dtype",
    "--device",
    "--pattern",
    "--text-column",
    "--split",
    "--offset",
    "--V",
  ].map((option) => ["loss", ...measured, option, "V"]),
  ...[
    "--workers",
    "--retain",
    "--strategy",
    "--objective",
    "--pin-full",
    "--pareto",
    "--holdout",
    "--blocks",
    "--pipeline-stages",
    "--max-shared-run",
  ].map((option) => ["search", ...measured, "--dry-run", option, "V"]),
  ...["--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed", "--pattern"].map((option) => [
    "run",
    tinyModel,
    "--tokens-file",
    "prompt.json",
    option,
    "V",
  ]),
  ...["--suite", "--tasks", "--lengths", "--samples", "--margin", "--alpha", "--limit", "--data", "--essays"].map(
    (option) => ["eval", demoModel, ...oneItem, "--dry-run", option, "V"],
  ),
  ["eval", "--from", "V"],
  ["search", "--status", "V"],
  ["search", "merge", "V", "-o", "merged.jsonl"],
];

export const commandLineClasses = [
  fuzzClass({
    name: "command line",
    mutation: fc.record({ line: fc.constantFrom(...lines), value: fc.constantFrom(...values) }),
    runs: 80,
    async prepare(folder) {
      const inner = join(folder, "a", "b");
      mkdirSync(inner, { recursive: true });
      await writeIds(join(inner, "ids.jsonl"), 2, 48);
      await writeFile(join(inner, "prompt.json"), "[1, 2, 3, 4]");
      const before = namesIn(folder);
      return async ({ line, value }) => {
        const args = line.map((word) => word.replace("V", () => value));
        // A device that this machine has not, and processes that are started from sources, fail as they run.
        const mayFail = ["--device", "--workers"].includes(line.at(-2) ?? "") ? [1, 2, 3] : [1, 2];
        const wrong = await runCaptured(args, inner, mayFail);
        return wrong ?? (namesIn(folder).join() === before.join() ? undefined : "something was written outside");
      };
    },
  }),
];
