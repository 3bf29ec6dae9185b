/** `indexcache demo`: what this tool does, on the model that comes with it. */
import { spawn } from "node:child_process";
import process from "node:process";
import type { Command } from "commander";
import { type ExitCode, IndexCacheError, InterruptedError } from "../base/errors.ts";
import { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";
import type { EvalItem, Suite } from "../eval/item.ts";
import { openPromptAssembly } from "../eval/prompt-assembly.ts";
import { evaluate } from "../eval/run/evaluation.ts";
import { openSuite } from "../eval/suites.ts";
import { tokenCounter } from "../eval/token-counter.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { type DemoArm, type DemoQuestion, formatDemoReport } from "../report/demo-report.ts";
import { Arms } from "../runtime/generate/arms.ts";
import { openLossEvaluator } from "../runtime/loss/loss-evaluator.ts";
import { defaultThreads } from "../runtime/session/onnx-session.ts";
import { type Flags, option } from "./arguments/declared-option.ts";
import { choosePattern, openCalibrationSet } from "./arguments/inputs.ts";
import { openModelToRun } from "./arguments/opening.ts";
import { demoModel, heldOutText, outputOptions } from "./arguments/options.ts";
import { proposedCommand } from "./console/next-command.ts";
import { Countdown, whileWaiting } from "./console/patience.ts";
import { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const options = [
  option("-o, --output <file>", "where the search's pattern goes", "demo-pattern.json"),
  option("-p, --pattern <pattern>", "ask under this pattern instead of searching"),
  ...outputOptions,
] as const;

type DemoFlags = Flags<typeof options>;

/** What the demo model was trained to answer; two samples of each, the first ones of the seed that `eval` takes. */
const tasks = ["niah_single_1", "niah_multikey_2", "vt"];
const SAMPLES = 2;
const SEED = 42;
/** The demo model's window. */
const LENGTH = 1024;
/** Sequences of held-out text, 1,024 tokens each. */
const SEQUENCES = 8;

const help = `
Searches the demo model for the indexers that it can do without, writes the pattern to FILE, and asks the model the same
questions with every indexer, with the quarter that the search has kept, and with every fourth layer's: about two minutes on
two cores. What it runs are the commands search, eval and loss.

Examples:
  $ indexcache demo
  $ indexcache demo --pattern FSSFSSSSSFSS      asks only, under a pattern of yours`;

export function addDemoCommand(program: Command): void {
  const command = program.command("demo").description("Search the demo model and show what the pattern is worth");
  addWork(command, { options, help, stopping: "Stopping" }, demo);
}

async function demo(flags: DemoFlags, terminal: Terminal): Promise<void> {
  if (flags.pattern === undefined) {
    terminal.note("1 of 2: searching for the quarter of the indexers that the demo model needs");
    await search(flags, terminal.signal);
    terminal.note("\n2 of 2: asking questions, with every indexer and with a quarter of them");
  }
  const quiet = new Terminal({ quiet: true }, terminal.signal);
  const model = await openModelToRun(demoModel, { device: "cpu", verify: false }, quiet);
  const choose = (pattern: string) => choosePattern(model, { pattern, offset: 0 });
  const searched = flags.pattern ?? `${flags.output}@1/4`;
  const arms = [
    { name: "full", pattern: await choose("full") },
    { name: flags.pattern === undefined ? "searched" : "yours", pattern: await choose(searched) },
    { name: "uniform", pattern: await choose("uniform:4") },
  ];
  await model.checkWeights();
  const questions = await askQuestions(model, arms, terminal);
  const measured = await measureLosses(model, arms, terminal);
  const result = { arms: measured, questions, length: LENGTH };
  terminal.answer({ command: "demo", ...result }, () => `\n${formatDemoReport(result)}`);
  if (flags.json === true) return;
  for (const line of nextCommands(searched)) terminal.note(line);
}

/** The search as anybody would start it, in a process of its own: its display, its journal and its Ctrl-C are its own. */
async function search({ output, quiet, json }: DemoFlags, signal: AbortSignal): Promise<void> {
  const words = ["search", "--sequences", "8", "--fresh", "-o", output, ...(quiet === true ? ["--quiet"] : [])];
  const stdout = json === true ? "ignore" : "inherit";
  const child = spawn(process.execPath, [process.argv[1] as string, ...words], {
    stdio: ["ignore", stdout, "inherit"],
  });
  // Ctrl-C reaches the child by itself; what reaches this process alone is passed on.
  const stop = (): void => void child.kill("SIGTERM");
  signal.addEventListener("abort", stop);
  try {
    const status = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, killedBy) => resolve(code ?? killedBy));
    });
    if (signal.aborted || status === 130) throw new InterruptedError("The demo was interrupted");
    // It has said itself what was wrong.
    if (status !== 0) throw new SearchFailure(`The demo's search ended with ${status}`, status);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Ends the demo as its search has ended. */
class SearchFailure extends IndexCacheError {
  readonly code = "E_DEMO";
  readonly exitCode: ExitCode;

  constructor(message: string, status: number | NodeJS.Signals | null) {
    super(message);
    this.exitCode = status === 1 || status === 2 ? status : 3;
  }
}

async function askQuestions(
  model: ModelFolder,
  arms: readonly Omit<DemoArm, "loss">[],
  terminal: Terminal,
): Promise<DemoQuestion[]> {
  const tokenizer = await Tokenizer.load(model.path);
  const assembly = await openPromptAssembly(tokenizer);
  const suite = await openQuestions(tokenizer, assembly.wrapperTokens, terminal.signal);
  const patterns = arms.map(({ pattern }) => pattern);
  const threads = defaultThreads();
  const runner = await whileWaiting(terminal, "loading the model", () =>
    Arms.open(model, tokenizer, patterns, { device: "cpu", threads }),
  );
  try {
    const questions: DemoQuestion[] = [];
    const countdown = new Countdown(terminal, "questions");
    const asked = evaluate({
      suite,
      assembly,
      arms: arms.map((arm) => ({ ...arm, repeat: 0 })),
      runner,
      window: model.config.maxPositionEmbeddings,
      known: [],
      signal: terminal.signal,
    });
    for await (const { item, samples } of asked) {
      questions.push({
        task: item.task,
        question: questionOf(item),
        expected: item.references.join(", "),
        answers: samples.map(({ output, score }) => ({ text: output, correct: score === 1 })),
      });
      countdown.tell(questions.length, suite.total ?? questions.length);
    }
    return questions;
  } finally {
    await runner.release();
  }
}

function openQuestions(tokenizer: Tokenizer, wrapperTokens: number, signal: AbortSignal): Promise<Suite> {
  return openSuite("ruler-core", {
    counter: tokenCounter(tokenizer),
    tokenizerHash: tokenizer.hash,
    wrapperTokens,
    tasks,
    samples: SAMPLES,
    lengths: [LENGTH],
    seed: SEED,
    signal,
  });
}

/** The question itself in a few words, of a prompt of pages. */
function questionOf({ prompt }: EvalItem): string {
  const asked = prompt.user.slice(prompt.user.lastIndexOf("\n", prompt.user.trimEnd().length - 1) + 1);
  const key = /special magic \w+ for (\S+) mentioned/.exec(asked)?.[1];
  if (key !== undefined) return `number of ${key}`;
  const value = /assigned the value (\S+)/.exec(asked)?.[1];
  return value === undefined ? asked : `variables that are ${value}`;
}

async function measureLosses(
  model: ModelFolder,
  arms: readonly Omit<DemoArm, "loss">[],
  terminal: Terminal,
): Promise<DemoArm[]> {
  const flags = { sequences: SEQUENCES, seed: 0, pack: true };
  const set = await openCalibrationSet(model, heldOutText, flags, new Terminal({ quiet: true }, terminal.signal));
  const evaluator = await openLossEvaluator(model, set.windows, { device: "cpu", dtype: "float32" });
  try {
    return await whileWaiting(terminal, "measuring losses on held-out text", async () => {
      const measured: DemoArm[] = [];
      for (const arm of arms) {
        const { loss } = await evaluator.evaluate(arm.pattern, { signal: terminal.signal });
        measured.push({ ...arm, loss });
      }
      return measured;
    });
  } finally {
    await evaluator.release();
  }
}

function nextCommands(searched: string): string[] {
  return [
    "",
    "Next: more questions, what an engine takes, and your own model:",
    `  ${proposedCommand(["eval", "-p", searched, "--samples", "50", "-o", "eval.json"])}`,
    `  ${proposedCommand(["pattern", searched, "--for", "vllm"])}`,
    `  ${proposedCommand(["search", "./your-checkpoint", "-c", "text.jsonl", "--retain", "1/2,1/4", "-o", "p.json"])}`,
  ];
}
