/** `indexcache init`: five questions, a config file, and the commands that come next. */
import { stat } from "node:fs/promises";
import { relative } from "node:path";
import process from "node:process";
import type { Command } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import { writeFileAtomically } from "../../base/files.ts";
import { engineNames } from "../../engines/engines.ts";
import { choice, type Flags, option } from "../arguments/declared-option.ts";
import { CONFIG_NAME } from "../config/config-file.ts";
import { isRunByAgent } from "../console/agent.ts";
import { proposedCommand } from "../console/next-command.ts";
import { requireWritable } from "../console/output-file.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { type Answers, checkEngine, checkModel, checkPlace, checkRetain, checkText, DEMO } from "./init-answers.ts";
import { Questions } from "./questions.ts";

const DEFAULT_RETAIN = "1/2,1/4";

const options = [
  option("-m, --model <model>", `folder of a checkpoint, owner/name in the Hugging Face cache, or ${DEMO}`),
  option("--on <place>", "where it runs: auto, cpu, webgpu, cuda, cuda:N, or the address of a vLLM or SGLang"),
  option("-c, --calibration <path>", "text to judge by, as search takes it"),
  option("-r, --retain <list>", `how many layers stay Full (default: ${DEFAULT_RETAIN})`),
  choice("--engine <name>", "which engine will serve it", ["none", ...engineNames]),
  option("-y, --yes", "ask nothing: take the defaults of what is not given"),
  option("-o, --output <file>", "the config file", CONFIG_NAME),
  option("--overwrite", "replace a config file that is there"),
] as const;

type InitFlags = Flags<typeof options>;

/** The text that the demo model and those made of it come with. */
const OWN_TEXT = "its own";

const help = `
Asks on a terminal what no option answers: the model, where it runs, the text to judge by, how many layers should keep their indexer, and the engine that will serve it. Each answer is checked at once: config.json is opened, the sequences of the text are counted. Without a terminal, --yes takes the defaults of what is not given; a model other than the demo, or one made of it, needs --calibration.

The commands to run next go to stdout, in their order. docs/config.md explains the file.

Examples:
  $ indexcache init --model demo --yes
  $ indexcache init --model ./GLM-5 --on http://127.0.0.1:8000 --calibration text.jsonl --retain 1/4 --engine vllm --yes`;

export function addInitCommand(program: Command): void {
  const command = program
    .command("init")
    .description("Ask five questions, write a config file, and print the commands to run next");
  addWork(command, { options, help, stopping: "Stopping: nothing was written" }, init);
}

async function init(flags: InitFlags, terminal: Terminal): Promise<void> {
  if (flags.overwrite !== true && (await stat(flags.output).catch(() => undefined)) !== undefined) {
    throw new InputError(`"${flags.output}" is there already`, {
      hint: "--overwrite replaces it; -o FILE writes another",
    });
  }
  await requireWritable(flags.output);
  const answers = await answersOf(flags, new Questions(terminal, mayAsk(flags)));
  await writeFileAtomically(flags.output, `${JSON.stringify(configOf(answers), null, 2)}\n`);
  terminal.note(`written: ${flags.output}`);
  const commands = nextCommands(answers, flags.output);
  terminal.result(commands.join("\n"));
  const [first] = commands;
  if (first !== undefined && isRunByAgent(process.env)) terminal.next("what it takes", first);
}

/** @throws UsageError where there is nobody to ask and not all is said */
function mayAsk({ yes, model }: InitFlags): boolean {
  if (yes === true) {
    if (model === undefined) throw new UsageError("--model is missing: --yes takes defaults, and a model has none");
    return false;
  }
  if (process.stdin.isTTY && process.stderr.isTTY && !isRunByAgent(process.env)) return true;
  throw new UsageError("There is no terminal to ask on", {
    hint: "give the answers as options: --model, --on, --calibration, --retain, --engine, and --yes",
  });
}

/** Asks for what the options do not say. */
async function answersOf(flags: InitFlags, questions: Questions): Promise<Answers> {
  const model = await questions.text({
    ...{ name: "model", given: flags.model },
    message: "Which model?",
    hint: "a folder with config.json, owner/name in the Hugging Face cache, or demo",
    initial: DEMO,
    check: checkModel,
  });
  const place = await questions.text({
    ...{ name: "where it runs", given: flags.on },
    message: "Where does it run?",
    hint: "auto, cpu, cuda, or the address of a running vLLM or SGLang: http://127.0.0.1:8000",
    initial: "auto",
    check: checkPlace,
  });
  const calibration = await questions.text({
    ...{ name: "text", given: flags.calibration },
    message: "Which text should it be judged by?",
    hint: "text, JSONL, CSV or Parquet of what the model is used for",
    initial: OWN_TEXT,
    mustBeAsked: model.text !== DEMO,
    check: (text) => checkText(text === OWN_TEXT ? undefined : text, model.value, questions.terminal.signal),
  });
  const retain = await questions.text({
    ...{ name: "retention", given: flags.retain },
    message: "How many layers should keep their indexer?",
    hint: "shares or numbers, with commas between",
    initial: DEFAULT_RETAIN,
    check: (text) => checkRetain(text, model.value),
  });
  const engine = await questions.choice({
    ...{ name: "engine", given: flags.engine },
    message: "Which engine will serve it?",
    choices: ["none", ...engineNames],
    check: checkEngine,
  });
  return {
    model: named(model.text),
    place: place.value,
    calibration: calibration.value,
    retain: retain.text,
    engine,
  };
}

function named(model: string): string | undefined {
  return model === DEMO ? undefined : model;
}

/** The config file of these answers; what is a default is left out. */
export function configOf({ model, place, calibration, retain, engine }: Answers): Record<string, unknown> {
  const common = {
    model,
    calibration,
    ...("device" in place && place.device !== "auto" ? { device: place.device } : {}),
    ...("server" in place ? { server: place.server } : {}),
  };
  return {
    ...(Object.keys(common).length === 0 ? {} : { common }),
    search: { retain, output: "pattern.json" },
    ...(engine === undefined ? {} : { pattern: { engine } }),
  };
}

/** From the search to the engine, in the order in which they are run. */
export function nextCommands({ place, retain, engine }: Answers, config: string): string[] {
  const sizes = retain.split(",").map((size) => size.trim());
  const files = sizes.length === 1 && retain !== "all" ? ["pattern.json"] : sizes.map((size) => `pattern.json@${size}`);
  const isFound = relative(".", config) === CONFIG_NAME;
  const command = (...words: string[]): string => proposedCommand([...(isFound ? [] : ["--config", config]), ...words]);
  const [file = "pattern.json"] = retain === "all" ? ["pattern.json@1/4"] : files.slice(-1);
  const arms = (retain === "all" ? [file] : files).flatMap((one) => ["-p", one]);
  return [
    command("search", "--dry-run"),
    command("search"),
    // The engine has the weights: what is asked there is the loss.
    ...("server" in place
      ? [command("loss", "-p", file)]
      : [command("eval", ...arms, "-o", "eval.json"), command("report", "pattern.json", "eval.json", "-o", "report")]),
    ...(engine === undefined ? [] : [command("pattern", file, "--for", engine)]),
  ];
}
