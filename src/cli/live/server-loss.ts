/** `indexcache loss --server`: the loss of one pattern on a running engine. */

import { numbersOf } from "../../live/live-model.ts";
import { requireCalls } from "../../live/preflight.ts";
import { formatLossReport, lossRecord, sourceLosses } from "../../report/loss-report.ts";
import { type MixFlags, openCalibrationMix } from "../arguments/calibration-mix.ts";
import { choosePattern } from "../arguments/inputs.ts";
import type { OutputFlags, PatternFlags } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";
import { lossesOn, openServedFolder, openServers, type ServerFlags } from "./server-options.ts";

type ServerLossFlags = ServerFlags & { server: string } & PatternFlags & MixFlags & OutputFlags;

export async function measureServerLoss(
  path: string | undefined,
  flags: ServerLossFlags,
  terminal: Terminal,
): Promise<void> {
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
