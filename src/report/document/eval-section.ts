/** What patterns do to benchmark scores, with verdicts. */
import { formatEvalMarkdown } from "../eval/eval-report.ts";
import type { EvalEvidence } from "./evidence.ts";
import { text } from "./markdown.ts";
import { scoreChart } from "./score-chart.ts";
import { blocks, chartLine, type Section, type SectionNames } from "./section.ts";

export async function evalSection({ file }: EvalEvidence, { suffix, label }: SectionNames): Promise<Section> {
  const chart = await scoreChart(`scores${suffix}`, file);
  return {
    heading: `Quality: ${text(file.suite.name)}${label(", ")}`,
    body: blocks(
      chart === undefined ? undefined : chartLine([chart]),
      chart === undefined
        ? undefined
        : "Lines are the intervals of the change; the dashed line is the margin that a pattern has to stay above.",
      formatEvalMarkdown(file),
    ),
    charts: chart === undefined ? [] : [chart],
  };
}
