/** Numbers for people: durations, rates, losses, scores. JSON gets the numbers themselves. */
import { formatBytes, formatCount, significant } from "../base/quantities.ts";

export { counted, formatBytes, formatCount, formatMagnitude } from "../base/quantities.ts";

/** `0.42 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, `40 days`. */
export function formatDuration(seconds: number): string {
  if (seconds < 9.95) return `${significant(seconds, 2)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes >= 240 * 60) return `${formatCount(minutes / (24 * 60))} days`;
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** Nats per token with the five decimals that are above the noise of near ties. */
export function formatLoss(loss: number): string {
  return loss.toFixed(5);
}

/** A difference of losses with its sign. */
export function formatLossChange(change: number): string {
  return `${change < 0 ? "-" : "+"}${Math.abs(change).toFixed(5)}`;
}

/** A standard error as a loss; null, with a single sequence, is no certainty but nothing known. */
export function formatError(error: number | null): string {
  return error === null ? "unknown" : formatLoss(error);
}

/** `1,234 tokens/s`; a dash where no time has passed. */
export function formatRate(count: number, seconds: number, unit = "tokens"): string {
  if (!(seconds > 0)) return "-";
  const rate = count / seconds;
  return `${rate < 100 ? significant(rate, 3) : formatCount(rate)} ${unit}/s`;
}

/** Layers that were loaded in turn: `13 passes, 312 layers, 31.2 GiB of weights in 3 min 05 s (172 MiB/s)`. */
export function formatLoads(loads: { passes: number; layers: number; bytes: number; seconds: number }): string {
  const { passes, layers, bytes, seconds } = loads;
  const rate = seconds > 0 ? ` (${formatBytes(bytes / seconds)}/s)` : "";
  return `${formatCount(passes)} pass${passes === 1 ? "" : "es"} over the layers, ${formatCount(layers)} loaded, ${formatBytes(bytes)} of weights in ${formatDuration(seconds)}${rate}`;
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}

/** A difference of scores, shares of 1, in points of 100 with its sign. */
export function formatPointChange(change: number): string {
  const points = (100 * Math.abs(change)).toFixed(1);
  return `${change < 0 && points !== "0.0" ? "-" : "+"}${points}`;
}

/** `1 point`, `0.5 points`: a share of 1 in points of 100, three significant digits, so that none becomes zero. */
export function formatPoints(share: number): string {
  const value = Number((100 * share).toPrecision(3));
  return `${value} ${value === 1 ? "point" : "points"}`;
}

/** A score, a share of 1, in points of 100; a dash where there is none. */
export function formatScore(score: number | undefined): string {
  return score === undefined ? "-" : (100 * score).toFixed(1);
}
