/** `indexcache loss`: the loss of one pattern. */
import type { Command } from "commander";
import { formatLossReport, lossRecord } from "../report/loss-report.ts";
import { openLossEvaluator } from "../runtime/loss.ts";
import { choosePattern, openCalibrationSet, openDevice, openDevices, placeName } from "./inputs.ts";
import { interruptible } from "./interruption.ts";
import { openModelToRun } from "./opening.ts";
import {
  addCalibrationOptions,
  addDeviceOptions,
  addDtypeOption,
  addModelArgument,
  addOutputOptions,
  addPatternOptions,
  addWorkersOptions,
  type CalibrationFlags,
  type DeviceFlags,
  type DtypeFlags,
  demoModel,
  type OutputFlags,
  type PatternFlags,
  type WorkerFlags,
} from "./options.ts";
import { addProfileOption, type ProfileFlags, withProfile } from "./profile.ts";
import { Terminal } from "./terminal.ts";

type LossFlags = PatternFlags & CalibrationFlags & DeviceFlags & DtypeFlags & WorkerFlags & ProfileFlags & OutputFlags;

const examples = `
Loss is the mean negative log-likelihood of the next token, in nats, over every token of every sequence but its first.
--profile computes in one process and twice: the first time warms up and is left out.

Examples:
  $ indexcache loss                                     the demo model with every indexer
  $ indexcache loss ./model -c text.jsonl -p FSSFFSSF
  $ indexcache loss ./model -c text.jsonl -p quarter.json --json
  $ indexcache loss ./model --device cuda --profile profile.json`;

export function addLossCommand(program: Command): void {
  const command = program.command("loss").description("Measure the LM loss of a pattern on a calibration set");
  addModelArgument(command);
  addPatternOptions(command);
  addCalibrationOptions(command);
  addDeviceOptions(command);
  addDtypeOption(command);
  addWorkersOptions(command);
  addProfileOption(command);
  addOutputOptions(command);
  command
    .addHelpText("after", examples)
    .action((model: string | undefined, flags: LossFlags) =>
      interruptible((signal) => measureLoss(model ?? demoModel, flags, signal), "Stopping"),
    );
}

async function measureLoss(path: string, flags: LossFlags, signal: AbortSignal): Promise<void> {
  const terminal = new Terminal(flags);
  const model = await openModelToRun(path, terminal);
  const pattern = await choosePattern(model, flags);
  const set = await openCalibrationSet(model, flags, terminal, signal);
  if (flags.profile !== undefined && flags.workers !== undefined && flags.workers > 1) {
    terminal.warn("--profile computes in one process: --workers is ignored");
  }
  await withProfile(flags, terminal, async (recording) => {
    // Sessions of other processes could not be recorded.
    const place =
      recording === undefined
        ? await openDevices(flags, terminal)
        : { ...(await openDevice(flags, terminal)), workers: 1, recording };
    const evaluator = await openLossEvaluator(model, set.windows, {
      ...place,
      dtype: flags.dtype,
      onReplacement: (words) => terminal.warn(words),
    });
    try {
      for (const line of evaluator.plan) terminal.detail(line);
      if (recording !== undefined) {
        await evaluator.evaluate(pattern, { signal });
        recording.leaveOutWarmUp();
      }
      const measurement = await evaluator.evaluate(pattern, { signal, afresh: recording !== undefined });
      terminal.result(
        flags.json === true ? JSON.stringify(lossRecord(measurement), null, 2) : formatLossReport(measurement),
      );
      return { command: "loss", device: placeName(place), seconds: measurement.seconds };
    } finally {
      await evaluator.release();
    }
  });
}
