/** `indexcache inspect`: what a model is, and whether it keeps the contract. */
import type { Command } from "commander";
import { findModel } from "../checkpoint/hub-cache.ts";
import { inspectModel } from "../graph/exported/inspect.ts";
import { formatInspection } from "../report/inspection-report.ts";
import { addModelArgument, addOutputOptions, demoModel, type OutputFlags } from "./arguments/options.ts";
import { ProgressNotes } from "./console/progress-notes.ts";
import { Terminal } from "./console/terminal.ts";
import { helpText } from "./help/help-text.ts";

interface InspectFlags extends OutputFlags {
  verify?: boolean;
}

const help = `
Examples:
  $ indexcache inspect ./model
  $ indexcache inspect ./model --verify --json`;

export function addInspectCommand(program: Command): void {
  const command = program
    .command("inspect")
    .description("Show a model's layers, indexers and sizes, and check that it keeps the contract");
  addModelArgument(command);
  command.option("--verify", "compare the hash of every file with the manifest");
  addOutputOptions(command);
  command.addHelpText("after", helpText(help)).action(async (model: string | undefined, flags: InspectFlags) => {
    const terminal = new Terminal(flags);
    const path = await findModel(model ?? demoModel);
    const progress = new ProgressNotes(terminal, "comparing hashes");
    const inspection = await inspectModel(path, {
      verify: flags.verify === true,
      onBytes: (bytes) => progress.advance(bytes),
    });
    terminal.result(flags.json === true ? JSON.stringify(inspection, null, 2) : formatInspection(inspection));
  });
}
