/** `indexcache loss`: the loss of one pattern. */
import type { Command } from "commander";
import { numbersOf } from "../live/live-model.ts";
import { requireCalls } from "../live/preflight.ts";
import { formatLossReport, lossRecord, sourceLosses } from "../report/loss-report.ts";
import { openLossEvaluator } from "../runtime/loss/loss-evaluator.ts";
import { type MixFlags, mixOptions, objectiveOption, openCalibrationMix } from "./arguments/calibration-mix.ts";
import { type Flags, group } from "./arguments/declared-option.ts";
import { EarlyStart, foreseenLengths } from "./arguments/early.ts";
import { choosePattern, openDevice, openDevices, placeName, runsOnCpu } from "./arguments/inputs.ts";
import { lossPlaceOptions, openModelForLosses } from "./arguments/memory.ts";
import { modelOptions } from "./arguments/opening.ts";
import {
  addModelArgument,
  demoModel,
  type OutputFlags,
  outputOptions,
  type PatternFlags,
  patternOptions,
} from "./arguments/options.ts";
import { profileOptions, withProfile } from "./arguments/profile.ts";
import { measurePasses } from "./console/loss-passes.ts";
import { whileWaiting } from "./console/patience.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";
import {
  lossesOn,
  modelPath,
  openServedFolder,
  openServers,
  type ServerFlags,
  serverOptions,
} from "./live/server-options.ts";

const options = [
  ...modelOptions,
  ...patternOptions,
  ...group(
    "Text:",
    ...mixOptions,
    objectiveOption("which tokens count: nll, all of them, or answer, those of answers after their prompts", [
      "nll",
      "answer",
    ]),
  ),
  ...lossPlaceOptions,
  ...profileOptions,
  ...serverOptions,
  ...outputOptions,
] as const;

type LossFlags = Flags<typeof options>;

const help = `
Loss is the mean negative log-likelihood of the next token, in nats, over every token of every sequence but its first; with --server over
those from position index_topk on, because no pattern changes the tokens before.
--profile computes in one process and twice: the first time warms up and is left out. So does a device other than the CPU
where that takes seconds: Time is of runs that are warm.

Examples:
  $ indexcache loss                                     the demo model with every indexer
  $ indexcache loss ./model -c text.jsonl -p FSSFFSSF
  $ indexcache loss ./model -c text.jsonl -p quarter.json --json
  $ indexcache loss ./model -c text.jsonl=0.5 -c ruler:vt=0.5 -p quarter.json
  $ indexcache loss ./model --device cuda --profile profile.json
  $ indexcache loss --server http://127.0.0.1:8000 -m ./GLM-5.1 -c text.jsonl -p glm.json@1/4`;

export function addLossCommand(program: Command): void {
  const command = program.command("loss").description("Measure the LM loss of a pattern on a calibration set");
  addModelArgument(command);
  const shown = "pattern calibration sequence-length sequences device devices dtype profile server json";
  addWork(
    command,
    { options, help, shown, stopping: "Stopping" },
    async (model: string | undefined, flags: LossFlags, terminal: Terminal) => {
      const path = modelPath(command, model, flags);
      const { server } = flags;
      if (server === undefined) await measureLoss(path ?? demoModel, flags, terminal);
      else await measureServerLoss(path, { ...flags, server }, terminal);
    },
  );
}

async function measureLoss(path: string, flags: LossFlags, terminal: Terminal): Promise<void> {
  // A recording computes in this process.
  const placed = flags.profile === undefined ? flags : { ...flags, device: "cpu" as const };
  const early = new EarlyStart("losses", placed, terminal);
  const { model, device } = await openModelForLosses(path, flags, terminal);
  const pattern = await choosePattern(model, flags);
  await early.foreseeLosses(model, await foreseenLengths(model, flags));
  const set = await openCalibrationMix(model, flags, terminal);
  if (flags.profile !== undefined && flags.workers !== undefined && flags.workers > 1) {
    terminal.warn("--profile computes in one process: --workers is ignored");
  }
  await withProfile(flags, terminal, async (recording) => {
    // Sessions of other processes could not be recorded.
    const place =
      recording === undefined
        ? await openDevices({ ...flags, device }, terminal, {
            work: { model, amount: () => ({ passed: set.tokens, sideBySide: set.windows.length }) },
            onTrial: early.onTrial,
          })
        : { ...(await openDevice({ ...flags, device }, terminal)), workers: 1, recording };
    await model.checkWeights();
    const opened = performance.now();
    const evaluator = await whileWaiting(terminal, "loading the model", () =>
      openLossEvaluator(model, set.windows, {
        ...place,
        ...{ dtype: flags.dtype, memory: flags.memory, early: early.at(place) },
        scoredFrom: set.scoredFrom,
        onReplacement: (words) => terminal.warn(words),
      }),
    );
    const loadSeconds = (performance.now() - opened) / 1000;
    try {
      for (const line of evaluator.plan) terminal.detail(line);
      const { measurement, warmUpSeconds } = await measurePasses(evaluator, pattern, {
        ...{ count: set.windows.length, signal: terminal.signal, terminal },
        warmsUp: !runsOnCpu(place) && evaluator.isWarm !== true,
        ...(recording === undefined ? {} : { onWarm: () => recording.leaveOutWarmUp() }),
      });
      const timing = { loadSeconds, warmUpSeconds };
      const sources = sourceLosses(set, measurement);
      terminal.answer(lossRecord(measurement, sources), () => formatLossReport(measurement, sources, timing));
      return { command: "loss", device: placeName(place), seconds: measurement.seconds };
    } finally {
      await evaluator.release();
    }
  });
}

type ServerLossFlags = ServerFlags & { server: string } & PatternFlags & MixFlags & OutputFlags;

/** With `--server`: on a running engine. */
async function measureServerLoss(path: string | undefined, flags: ServerLossFlags, terminal: Terminal): Promise<void> {
  const model = await openServedFolder(path, terminal);
  const { indexTopk } = model.config;
  const served = await openServers(flags, model, terminal);
  try {
    const pattern = await choosePattern(model, flags);
    const set = await openCalibrationMix(model, flags, terminal);
    await served.prepare(terminal.signal);
    const { concurrency } = flags;
    const losses = lossesOn(served, set, { objective: "nll", indexTopk, concurrency }, terminal);
    for (const line of losses.plan) terminal.detail(line);
    for (const { adapter } of served.replicas) await adapter.count(true, terminal.signal);
    const measurement = await losses.evaluate(pattern, { signal: terminal.signal });
    const sources = sourceLosses(set, measurement);
    for (const replica of served.replicas) await requireCalls(replica, pattern, terminal.signal);
    const server = { ...numbersOf(served.description), servers: served.replicas.length, scored_from: indexTopk };
    terminal.note(
      `scored: tokens from position ${indexTopk} of each sequence on${set.sources.some(({ answers }) => answers) ? ", of answers only those of the answer" : ""}`,
    );
    terminal.answer({ ...lossRecord(measurement, sources), server }, () => formatLossReport(measurement, sources));
  } finally {
    await served.release();
  }
}
