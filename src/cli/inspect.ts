/** `indexcache inspect`: what a model is, and whether it keeps the contract. */
import type { Command } from "commander";
import { findModel } from "../checkpoint/hub-cache.ts";
import { inspectModel } from "../graph/inspect.ts";
import { formatInspection } from "../report/inspection-report.ts";
import { addModelArgument, addOutputOptions, demoModel, type OutputFlags } from "./options.ts";
import { Terminal } from "./terminal.ts";

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
  command.addHelpText("after", help).action(async (model: string | undefined, flags: InspectFlags) => {
    const inspection = await inspectModel(await findModel(model ?? demoModel), { verify: flags.verify === true });
    new Terminal(flags).result(
      flags.json === true ? JSON.stringify(inspection, null, 2) : formatInspection(inspection),
    );
  });
}
