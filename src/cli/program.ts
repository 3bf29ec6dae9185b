/** The command line as a whole. */
import process from "node:process";
import { Command } from "commander";
import type { ExitCode } from "../base/errors.ts";
import { messageLine } from "../base/quoted.ts";
import { toolVersion } from "../base/version.ts";
import { reportFailure } from "./console/failure.ts";

/**
 * The commands in the order of the help. Each is loaded when it is asked for: all of them are hundreds of modules, and
 * starting would take longer than most commands do.
 */
const commands: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  search: async () => (await import("./search/search.ts")).addSearchCommand,
  run: async () => (await import("./run.ts")).addRunCommand,
  loss: async () => (await import("./loss.ts")).addLossCommand,
  eval: async () => (await import("./eval/eval.ts")).addEvalCommand,
  analyze: async () => (await import("./analyze.ts")).addAnalyzeCommand,
  bench: async () => (await import("./bench.ts")).addBenchCommand,
  serve: async () => (await import("./serve.ts")).addServeCommand,
  server: async () => (await import("./live/server.ts")).addServerCommand,
  kit: async () => (await import("./live/kit.ts")).addKitCommand,
  distill: async () => (await import("./distill/distill.ts")).addDistillCommand,
  export: async () => (await import("./export.ts")).addExportCommand,
  inspect: async () => (await import("./inspect.ts")).addInspectCommand,
  pattern: async () => (await import("./pattern/pattern.ts")).addPatternCommand,
  report: async () => (await import("./report.ts")).addReportCommand,
  doctor: async () => (await import("./doctor.ts")).addDoctorCommand,
};

const help = `
Results go to stdout (a table, or JSON with --json), everything else to stderr.

Exit codes: 0 done, 1 a stated gate failed, 2 wrong usage or input, 3 the machine or the runtime failed, 130 interrupted (Ctrl-C, SIGTERM).

Start here:
  $ indexcache search -o p.json                         searches the demo model, in about a minute
  $ indexcache run -p p.json --prompt "Once"            generates with what it found`;

/** Runs a command line; gives the exit code and prints whatever is to be said. */
export async function runCommandLine(argv: readonly string[]): Promise<ExitCode> {
  try {
    await (await buildProgram(argv[2])).parseAsync(argv);
    return 0;
  } catch (error) {
    return reportFailure(error);
  }
}

/** @param first the first word: where it is a command's name, no other is loaded; without it the help names them all */
async function buildProgram(first = ""): Promise<Command> {
  const program = new Command("indexcache")
    .description("Finds which lightning indexers a DeepSeek-Sparse-Attention model can drop, and runs the result")
    .version(toolVersion)
    .showSuggestionAfterError()
    // Its messages repeat arguments, of any length and with any characters.
    .configureOutput({ writeErr: (text) => process.stderr.write(text.split("\n").map(messageLine).join("\n")) })
    // Commander would exit the process with its own codes.
    .exitOverride()
    // Options behind a command are its own, and those behind `search merge` are merge's, which has an -o as well.
    .enablePositionalOptions()
    .addHelpText("after", help);
  const named = Object.hasOwn(commands, first) ? commands[first] : undefined;
  const loaded = named === undefined ? Object.values(commands) : [named];
  for (const addCommand of await Promise.all(loaded.map((load) => load()))) addCommand(program);
  return program;
}
