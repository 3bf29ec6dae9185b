/** Charts: a vega-lite specification becomes an SVG here, in Node and without a browser. */
import { parse, View } from "vega";
import { type Config, compile, type TopLevelSpec } from "vega-lite";
import { darkChartStyle, faintInk, ink, paper, rule, seriesColors } from "./palette.ts";

export interface Chart {
  /** File name, without a folder. */
  name: string;
  /** What it shows, for readers who do not see it. */
  alt: string;
  svg: string;
}

const font = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif";

const config: Config = {
  background: paper,
  font,
  view: { stroke: null },
  axis: {
    labelColor: ink,
    titleColor: faintInk,
    gridColor: rule,
    domainColor: faintInk,
    tickColor: faintInk,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
  },
  legend: { labelColor: ink, titleColor: faintInk, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
  header: { labelColor: ink, titleColor: faintInk, labelFontSize: 12, titleFontSize: 12 },
  title: { color: ink, fontSize: 13, anchor: "start" },
  range: { category: [...seriesColors] },
  text: { color: ink },
  rule: { color: faintInk },
};

/** Two-sided 95%. */
const NORMAL_QUANTILE = 1.96;

/** The ends of an error bar; none where the error is not known. */
export function errorBar(mean: number, error: number | null | undefined): { low?: number; high?: number } {
  return error == null ? {} : { low: mean - NORMAL_QUANTILE * error, high: mean + NORMAL_QUANTILE * error };
}

/** Series by colour and shape, named in one legend below the chart. */
export function seriesEncoding(field: string, names: readonly string[]) {
  const series = { field, type: "nominal" as const, title: null, sort: [...names] };
  return { color: { ...series, legend: { orient: "bottom" as const, columns: 2, labelLimit: 220 } }, shape: series };
}

/** A line across the chart. */
export function levelLine(y: number) {
  return {
    mark: { type: "rule" as const, color: rule },
    encoding: { y: { datum: y, type: "quantitative" as const }, x: { value: 0 }, x2: { value: "width" as const } },
  };
}

/** Renders a chart. The same specification gives the same bytes. */
export async function drawChart(name: string, alt: string, spec: TopLevelSpec): Promise<Chart> {
  const { spec: vega } = compile(spec, { config });
  const view = new View(parse(vega), { renderer: "none" });
  try {
    const plain = fileName(name);
    return { name: `${plain}.svg`, alt, svg: scalable(ownIds(await view.toSVG(), plain)) };
  } finally {
    view.finalize();
  }
}

/** The chart as a file of its own, dark where the reader's system is. */
export function chartFile({ svg }: Chart): string {
  return `${svg.replace(/^(<svg[^>]*>)/, `$1<style>${darkChartStyle()}</style>`)}\n`;
}

/** Vega counts gradients and clips over all charts of a process; here they are counted in each, and named after it. */
function ownIds(svg: string, name: string): string {
  const ids = [...new Set([...svg.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id ?? ""))];
  return ids.reduce(
    (text, id, index) =>
      text.replaceAll(` id="${id}"`, ` id="${name}-${index}"`).replaceAll(`url(#${id})`, `url(#${name}-${index})`),
    svg,
  );
}

/** Names of files that the user gave are part of some charts' names. */
function fileName(name: string): string {
  return name.replaceAll(/[^\w.-]+/g, "-");
}

/** Width and height become a limit, so that the drawing shrinks with a narrow page. */
function scalable(svg: string): string {
  return svg.replace(
    /^<svg([^>]*?) width="([\d.]+)" height="([\d.]+)"/,
    '<svg$1 width="$2" height="$3" style="max-width:100%;height:auto"',
  );
}
