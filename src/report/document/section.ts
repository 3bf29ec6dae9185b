/** A part of a report: Markdown, and the charts that it refers to. */
import type { Chart } from "./chart.ts";
import { text } from "./markdown.ts";

export interface Section {
  heading: string;
  /** Markdown without the heading. */
  body: string;
  charts: Chart[];
}

/** Paragraphs, tables and charts one below the other. */
export function blocks(...parts: readonly (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== "").join("\n\n");
}

/** Charts in one paragraph: side by side where the page is wide enough. */
export function chartLine(charts: readonly Chart[]): string {
  return charts.map(({ alt, name }) => `![${text(alt)}](${name})`).join("\n");
}
