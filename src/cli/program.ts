/** The command line as a whole. */
import process from "node:process";
import { Command } from "commander";
import type { ExitCode } from "../base/errors.ts";
import { messageLine } from "../base/quoted.ts";
import { toolVersion } from "../base/version.ts";
import { addAnalyzeCommand } from "./analyze.ts";
import { addBenchCommand } from "./bench.ts";
import { addDistillCommand } from "./distill/distill.ts";
import { addDoctorCommand } from "./doctor.ts";
import { addEvalCommand } from "./eval.ts";
import { addExportCommand } from "./export.ts";
import { reportFailure } from "./failure.ts";
import { addInspectCommand } from "./inspect.ts";
import { addKitCommand } from "./live/kit.ts";
import { addServerCommand } from "./live/server.ts";
import { addLossCommand } from "./loss.ts";
import { addPatternCommand } from "./pattern.ts";
import { addReportCommand } from "./report.ts";
import { addRunCommand } from "./run.ts";
import { addSearchCommand } from "./search.ts";
import { addServeCommand } from "./serve.ts";

const help = `
Results go to stdout (a table, or JSON with --json), everything else to stderr.

Exit codes: 0 done, 1 a stated gate failed, 2 wrong usage or input, 3 the machine or the runtime failed, 130 interrupted (Ctrl-C, SIGTERM).

Start here:
  $ indexcache search -o p.json                         searches the demo model, in about a minute
  $ indexcache run -p p.json --prompt "Once"            generates with what it found`;

/** Runs a command line; gives the exit code and prints whatever is to be said. */
export async function runCommandLine(argv: readonly string[]): Promise<ExitCode> {
  try {
    await buildProgram().parseAsync(argv);
    return 0;
  } catch (error) {
    return reportFailure(error);
  }
}

function buildProgram(): Command {
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
  addSearchCommand(program);
  addRunCommand(program);
  addLossCommand(program);
  addEvalCommand(program);
  addAnalyzeCommand(program);
  addBenchCommand(program);
  addServeCommand(program);
  addServerCommand(program);
  addKitCommand(program);
  addDistillCommand(program);
  addExportCommand(program);
  addInspectCommand(program);
  addPatternCommand(program);
  addReportCommand(program);
  addDoctorCommand(program);
  return program;
}
