/** What patterns do to benchmark scores, with verdicts. */
import { formatEvalMarkdown } from "../eval/eval-report.ts";
import type { EvalEvidence, Evidence } from "./evidence.ts";
import { text } from "./markdown.ts";
import { scoreChart } from "./score-chart.ts";
import { blocks, chartLine, type Section } from "./section.ts";

export async function evalSections({ evaluations }: Evidence): Promise<Section[]> {
  const sections: Section[] = [];
  for (const evaluation of evaluations) sections.push(await evalSection(evaluation, evaluations.length > 1));
  return sections;
}

async function evalSection({ file, name }: EvalEvidence, isOneOfMany: boolean): Promise<Section> {
  const chart = await scoreChart(isOneOfMany ? `scores-${name}` : "scores", file);
  return {
    heading: `Quality: ${text(file.suite.name)}${isOneOfMany ? `, ${text(name)}` : ""}`,
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
