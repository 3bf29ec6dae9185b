/** `indexcache loss`: the loss of one pattern. */
import type { Command } from "commander";
import { openModel } from "../graph/model-folder.ts";
import { formatLossReport, lossRecord } from "../report/loss-report.ts";
import { openLossEvaluator } from "../runtime/loss.ts";
import { choosePattern, openCalibrationSet, openDevice } from "./inputs.ts";
import { interruptible } from "./interruption.ts";
import {
  addCalibrationOptions,
  addDeviceOptions,
  addDtypeOption,
  addModelArgument,
  addOutputOptions,
  addPatternOptions,
  addWorkersOption,
  type CalibrationFlags,
  type DeviceFlags,
  type DtypeFlags,
  demoModel,
  type OutputFlags,
  type PatternFlags,
  type WorkerFlags,
} from "./options.ts";
import { Terminal } from "./terminal.ts";

type LossFlags = PatternFlags & CalibrationFlags & DeviceFlags & DtypeFlags & WorkerFlags & OutputFlags;

const examples = `
Loss is the mean negative log-likelihood of the next token, in nats, over every token of every sequence but its first.

Examples:
  $ indexcache loss                                     the demo model with every indexer
  $ indexcache loss ./model -c text.jsonl -p FSSFFSSF
  $ indexcache loss ./model -c text.jsonl -p quarter.json --json`;

export function addLossCommand(program: Command): void {
  const command = program.command("loss").description("Measure the LM loss of a pattern on a calibration set");
  addModelArgument(command);
  addPatternOptions(command);
  addCalibrationOptions(command);
  addDeviceOptions(command);
  addDtypeOption(command);
  addWorkersOption(command);
  addOutputOptions(command);
  command
    .addHelpText("after", examples)
    .action((model: string | undefined, flags: LossFlags) =>
      interruptible((signal) => measureLoss(model ?? demoModel, flags, signal), "Stopping"),
    );
}

async function measureLoss(path: string, flags: LossFlags, signal: AbortSignal): Promise<void> {
  const terminal = new Terminal(flags);
  const model = await openModel(path);
  const pattern = await choosePattern(model, flags);
  const set = await openCalibrationSet(model, flags, terminal, signal);
  const evaluator = await openLossEvaluator(model, set.windows, {
    ...(await openDevice(flags, terminal)),
    dtype: flags.dtype,
  });
  try {
    for (const line of evaluator.plan) terminal.detail(line);
    const measurement = await evaluator.evaluate(pattern, { signal });
    terminal.result(
      flags.json === true ? JSON.stringify(lossRecord(measurement), null, 2) : formatLossReport(measurement),
    );
  } finally {
    await evaluator.release();
  }
}
