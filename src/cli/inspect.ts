/** `indexcache inspect`: what a model is, and whether it keeps the contract. */
import type { Command } from "commander";
import { declaredWeights } from "../checkpoint/bind-weights.ts";
import { elementsOf } from "../checkpoint/weights.ts";
import { inspectModel } from "../graph/exported/inspect.ts";
import { describeModel, openModel } from "../graph/model-folder.ts";
import { describeConfig, formatConfigInspection, formatInspection } from "../report/inspection-report.ts";
import { availableMemory } from "../runtime/device/host-memory.ts";
import { modelSizes } from "../runtime/device/model-sizes.ts";
import { type WeightNeeds, weightNeeds } from "../runtime/loss/weight-needs.ts";
import { sizesOf } from "../runtime/loss/weight-room.ts";
import { type Flags, option } from "./arguments/declared-option.ts";
import { addModelArgument, demoModel, outputOptions } from "./arguments/options.ts";
import { findFolder } from "./arguments/weightless.ts";
import { ByteCount } from "./console/patience.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";
import { knownPatterns } from "./pattern/shelf.ts";

const options = [option("--verify", "compare the hash of every file with the manifest"), ...outputOptions] as const;

const help = `
Examples:
  $ indexcache inspect ./model
  $ indexcache inspect ./config.json                    what the model takes, by its config alone
  $ indexcache inspect ./model --verify --json`;

export function addInspectCommand(program: Command): void {
  const command = program
    .command("inspect")
    .description("Show a model's layers, indexers and sizes, and check that it keeps the contract");
  addModelArgument(command);
  addWork(command, { options, help }, inspect);
}

async function inspect(model = demoModel, flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  const { folder: path, hasWeights } = await findFolder(model);
  if (!hasWeights) return await inspectConfig(path, terminal);
  const progress = new ByteCount(terminal, "comparing hashes");
  const inspection = await inspectModel(path, {
    verify: flags.verify === true,
    onBytes: (bytes) => progress.add(bytes),
  });
  const losses = await lossNeeds(path);
  const known = await knownNames(path, inspection.architecture, inspection.layers);
  const shown = { ...inspection, losses, knownPatterns: known };
  terminal.answer(shown, () => formatInspection(shown, terminal.resultWidth));
}

/** Of sequences of a usual length; the length decides little beside the weights. */
const someTokens = 1024;

async function lossNeeds(path: string): Promise<WeightNeeds | undefined> {
  const model = await openModel(path, { withAdapter: true });
  const sizes = await sizesOf(model);
  return sizes === undefined ? undefined : weightNeeds(model.config, sizes, [someTokens], availableMemory());
}

/** What config.json alone tells. */
async function inspectConfig(path: string, terminal: Terminal): Promise<void> {
  const { config } = await describeModel(path);
  const weights = declaredWeights(config);
  const losses = weightNeeds(config, modelSizes(weights), [someTokens], availableMemory());
  const described = { ...describeConfig(config), parameters: elementsOf(weights, config.indexerLayers), losses };
  const known = await knownNames(path, described.architecture, described.layers);
  terminal.note("there are no weights: what they take is estimated from config.json");
  terminal.answer({ ...described, knownPatterns: known }, () =>
    formatConfigInspection(described, known, terminal.resultWidth),
  );
}

/** What `pattern --list` has for the model. */
async function knownNames(folder: string, architecture: string, layers: number): Promise<string[]> {
  return (await knownPatterns({ folder, architecture, layers })).map(({ name, tier }) => `${name} (${tier})`);
}
