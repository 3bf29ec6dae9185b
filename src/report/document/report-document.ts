/** The report of an evidence: its Markdown, its charts, and the page that holds both. */
import { layersSection, sharingSection } from "./analysis-section.ts";
import { benchSection } from "./bench-section.ts";
import type { Chart } from "./chart.ts";
import { evalSection } from "./eval-section.ts";
import type { Evidence } from "./evidence.ts";
import { blocks, text } from "./markdown.ts";
import type { PromptLengths } from "./prefill-forecast.ts";
import { provenanceSection } from "./provenance-section.ts";
import { lossSection, patternSection } from "./search-section.ts";
import { type Section, sectionsOfEach } from "./section.ts";
import { servingSection } from "./serving-section.ts";
import { summarySection } from "./summary-section.ts";

export interface ReportDocument {
  title: string;
  markdown: string;
  charts: Chart[];
}

/**
 * Sections whose file was not given are left out.
 * @param lengths of the prompts that the verdict foretells the speed for; without them the longest that was timed
 */
export async function reportDocument(evidence: Evidence, lengths?: PromptLengths): Promise<ReportDocument> {
  const title = `IndexCache report: ${modelName(evidence)}`;
  const sections: Section[] = [
    await patternSection(evidence),
    await lossSection(evidence),
    ...(await sectionsOfEach(evidence.benches, benchSection)),
    ...(await sectionsOfEach(evidence.evaluations, evalSection)),
    ...(await sectionsOfEach(evidence.analyses, layersSection, sharingSection)),
    servingSection(evidence),
    provenanceSection(evidence),
  ].filter((section) => section !== undefined);
  const body = sections.map(({ heading, body: content }) => blocks(`## ${heading}`, content));
  return {
    title,
    markdown: `${blocks(`# ${text(title)}`, summarySection(evidence, lengths), ...body)}\n`,
    charts: sections.flatMap(({ charts }) => charts),
  };
}

function modelName({ searches, analyses, evaluations, benches, latencies }: Evidence): string {
  const [first] = [...searches, ...analyses, ...evaluations, ...benches, ...latencies];
  return first?.file.model.name ?? "";
}
