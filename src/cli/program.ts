/** The command line as a whole. */
import process from "node:process";
import { Command } from "commander";
import { type ExitCode, InputError } from "../base/errors.ts";
import { messageLine } from "../base/quoted.ts";
import { toolVersion } from "../base/version.ts";
import { requireNamedOutputs, requireOtherOutputs } from "./arguments/output-paths.ts";
import { takeSettings } from "./config/configured.ts";
import { isRunByAgent } from "./console/agent.ts";
import { reportFailure } from "./console/failure.ts";
import { commandNamed, groupedHelp } from "./help/help-groups.ts";
import { helpText } from "./help/help-text.ts";

interface LoadedCommand {
  group: string;
  load: () => Promise<(program: Command) => void>;
}

const find = "Find a pattern:";
const prove = "Prove that it holds:";
const serve = "Run and serve it:";
const look = "Models and machines:";

/**
 * The commands in the order of the help. Each is loaded when it is asked for: all of them are hundreds of modules, and
 * starting would take longer than most commands do.
 */
const commands: Readonly<Record<string, LoadedCommand>> = {
  demo: { group: find, load: async () => (await import("./demo.ts")).addDemoCommand },
  init: { group: find, load: async () => (await import("./init/init.ts")).addInitCommand },
  search: { group: find, load: async () => (await import("./search/search.ts")).addSearchCommand },
  distill: { group: find, load: async () => (await import("./distill/distill.ts")).addDistillCommand },
  pattern: { group: find, load: async () => (await import("./pattern/pattern.ts")).addPatternCommand },
  loss: { group: prove, load: async () => (await import("./loss.ts")).addLossCommand },
  eval: { group: prove, load: async () => (await import("./eval/eval.ts")).addEvalCommand },
  analyze: { group: prove, load: async () => (await import("./analyze/analyze.ts")).addAnalyzeCommand },
  bench: { group: prove, load: async () => (await import("./bench.ts")).addBenchCommand },
  report: { group: prove, load: async () => (await import("./report.ts")).addReportCommand },
  run: { group: serve, load: async () => (await import("./run.ts")).addRunCommand },
  serve: { group: serve, load: async () => (await import("./serve.ts")).addServeCommand },
  server: { group: serve, load: async () => (await import("./live/server.ts")).addServerCommand },
  kit: { group: serve, load: async () => (await import("./live/kit.ts")).addKitCommand },
  export: { group: look, load: async () => (await import("./export.ts")).addExportCommand },
  inspect: { group: look, load: async () => (await import("./inspect.ts")).addInspectCommand },
  config: {
    group: look,
    load: async () => {
      const { addConfigCommand } = await import("./config/config.ts");
      return (program) => addConfigCommand(program, buildProgram);
    },
  },
  completion: {
    group: look,
    load: async () => {
      const { addCompletionCommand } = await import("./completion/completion.ts");
      return (program) => addCompletionCommand(program, buildProgram);
    },
  },
  doctor: { group: look, load: async () => (await import("./doctor.ts")).addDoctorCommand },
};

const help = `
Results go to stdout (a table, or JSON with --json), everything else to stderr.

Exit codes: 0 done, 1 a stated gate failed, 2 wrong usage or input, 3 the machine or the runtime failed, 130 interrupted (Ctrl-C, SIGTERM).

--version --json prints versions and platform, --help --skill prints a skill file for agents.

Start here:
  $ indexcache demo                                     searches the demo model and shows what the pattern is worth
  $ indexcache search ./model -c text.jsonl -o p.json   searches yours`;

/** Runs a command line, prints its results and errors, and returns the exit code. */
export async function runCommandLine(argv: readonly string[]): Promise<ExitCode> {
  try {
    requireWorkingFolder();
    if (isRunByAgent(process.env)) process.env.NO_COLOR = "1";
    if (await answerAtOnce(argv.slice(2))) return 0;
    const program = await buildProgram(argv[2]);
    const [first, ...words] = argv.slice(2);
    if (first === "help" && words.length > 0 && !words.some((word) => word.startsWith("-"))) {
      commandNamed(words, program).outputHelp();
      return 0;
    }
    takeSettings(program, argv, Object.keys(commands), buildProgram);
    program.hook("preAction", async (_, command) => {
      requireNamedOutputs(command);
      await requireOtherOutputs(command);
    });
    await program.parseAsync(argv);
    return 0;
  } catch (error) {
    return reportFailure(error);
  }
}

/** @throws InputError where the folder that the program was started in was removed: no relative path leads anywhere then */
function requireWorkingFolder(): void {
  try {
    process.cwd();
  } catch (error) {
    throw new InputError("The folder that this was started in is not there any more", {
      cause: error,
      hint: "change to another one",
    });
  }
}

/** Two questions that are about the program, not about a command. */
async function answerAtOnce(words: readonly string[]): Promise<boolean> {
  const has = (...names: string[]): boolean => names.some((name) => words.includes(name));
  if (words.length === 2 && has("--version", "-V") && has("--json")) {
    const { versionRecord } = await import("./help/version.ts");
    process.stdout.write(`${JSON.stringify(await versionRecord(), null, 2)}\n`);
    return true;
  }
  if (has("--skill") && has("--help", "-h") && words.length <= 3) {
    const { skillFile } = await import("./help/skill.ts");
    const named = words.find((word) => !word.startsWith("-"));
    const program = await buildProgram(named);
    const all = program.commands.filter((command) => named === undefined || command.name() === named);
    if (all.length === 0 || (named !== undefined && all.length > 1)) return false;
    process.stdout.write(skillFile(program, all));
    return true;
  }
  return false;
}

/** @param first the first word: where it is a command's name, no other is loaded; without it the help names them all */
export async function buildProgram(first = ""): Promise<Command> {
  const program = new Command("indexcache")
    .description("Finds which lightning indexers a DeepSeek-Sparse-Attention model can drop, and runs the result")
    .version(toolVersion)
    .option("--config <file>", "take options from this file (default: the nearest indexcache.config.json)")
    .option("--no-config", "take none from a file")
    .configureHelp(groupedHelp)
    .showSuggestionAfterError()
    // Its messages repeat arguments, of any length and with any characters.
    .configureOutput({ writeErr: (text) => process.stderr.write(text.split("\n").map(messageLine).join("\n")) })
    // Commander would exit the process with its own codes.
    .exitOverride()
    // Options after a command are its own, and those after `search merge` are merge's, which has an -o as well.
    .enablePositionalOptions()
    .addHelpText("after", helpText(help));
  const named = Object.hasOwn(commands, first) ? commands[first] : undefined;
  const wanted = named === undefined ? Object.values(commands) : [named];
  const loaded = await Promise.all(wanted.map(async ({ group, load }) => ({ group, add: await load() })));
  for (const { group, add } of loaded) {
    program.commandsGroup(group);
    add(program);
  }
  program.commandsGroup("Help:").helpCommand("help [command]", "show the help of a command");
  return program;
}
