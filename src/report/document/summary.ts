/** The report in a few lines: what was found, at what price, for what gain. */
import { fullLayers } from "../../pattern/pattern.ts";
import { formatCount, formatLossChange } from "../quantities.ts";
import type { Evidence } from "./evidence.ts";
import { bullets, code, text } from "./markdown.ts";

/** Says only what the files say; a part without a file has no line. */
export function summary({ searches: [search], benches, evaluations }: Evidence): string {
  const lines: string[] = [];
  if (search !== undefined) {
    const { index_topk_pattern: pattern, model, loss, baseline_loss: baseline } = search.file;
    const full = fullLayers(pattern).length;
    const relative = (100 * (loss - baseline)) / baseline;
    lines.push(
      `${code(pattern)} keeps ${full} of ${model.layers} indexers (${((100 * full) / model.layers).toFixed(1)}%); loss ${formatLossChange(loss - baseline)} nats per token (${relative < 0 ? "-" : "+"}${Math.abs(relative).toFixed(2)}%) on the calibration set.`,
    );
  }
  for (const { file } of benches) {
    const longest = file.prefill.at(-1);
    const fastest = longest?.arms
      .slice(1)
      .reduce((best, arm) => (arm.speedup.median > best.speedup.median ? arm : best));
    if (longest === undefined || fastest === undefined) continue;
    lines.push(
      `${text(file.model.name)}, prefill of ${formatCount(longest.context)} tokens: ${fastest.speedup.median.toFixed(2)}x with ${text(fastest.pattern)}; Amdahl's limit ${fastest.limit.toFixed(2)}x.`,
    );
  }
  for (const { file } of evaluations) {
    const overall = file.rows.find(({ kind, endpoint }) => kind === "overall" && endpoint === "generation");
    for (const { arm, difference, verdict } of overall?.comparisons ?? []) {
      const points = `${difference < 0 ? "-" : "+"}${Math.abs(100 * difference).toFixed(1)}`;
      lines.push(
        `${text(file.suite.name)}, ${text(file.arms[arm]?.name ?? "")}: ${points} points of 100 over ${formatCount(overall?.items ?? 0)} items, ${verdict} at a margin of ${(100 * file.statistics.margin).toFixed(1)}.`,
      );
    }
  }
  return bullets(lines);
}
