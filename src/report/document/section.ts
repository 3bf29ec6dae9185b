/** A part of a report: Markdown, and the charts that it refers to. */
import type { Chart } from "./chart.ts";
import { text } from "./markdown.ts";

export interface Section {
  heading: string;
  /** Markdown without the heading. */
  body: string;
  charts: Chart[];
}

/** How a section and its charts are told from those of other files of the same kind; empty where there are none. */
export interface SectionNames {
  /** Of names of charts. */
  suffix: string;
  /** Of the heading. */
  label(separator: string): string;
}

/** The sections of each file of a kind, one file after the other. */
export async function sectionsOfEach<File extends { name: string }>(
  files: readonly File[],
  ...makers: readonly ((file: File, names: SectionNames) => Promise<Section>)[]
): Promise<Section[]> {
  const sections: Section[] = [];
  for (const file of files) {
    const [suffix, name] = files.length > 1 ? [`-${file.name}`, text(file.name)] : ["", ""];
    const label = (separator: string): string => (name === "" ? "" : separator + name);
    for (const make of makers) sections.push(await make(file, { suffix, label }));
  }
  return sections;
}

/** Charts in one paragraph: side by side where the page is wide enough. */
export function chartLine(charts: readonly Chart[]): string {
  return charts.map(({ alt, name }) => `![${text(alt)}](${name})`).join("\n");
}
