/** The report as one HTML file: nothing in it is fetched, nothing in it runs. */
import { Marked } from "marked";
import type { Chart } from "./chart.ts";
import { darkChartStyle, darkColor, faintInk, ink, paper, rule, seriesColors } from "./palette.ts";
import type { ReportDocument } from "./report-document.ts";

/** Colours of the page, light and dark by the reader's system; charts bring theirs. */
const colors = { ink, faint: faintInk, rule, paper, link: seriesColors[0] };

export function htmlPage({ title, markdown, charts }: ReportDocument): string {
  return [
    "<!doctype html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    // Whatever a file has smuggled in is not fetched and does not run.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    `<title>${escapeHtml(title)}</title>`,
    `<style>${pageStyle()}${darkChartStyle()}</style>`,
    "</head>",
    "<body>",
    "<main>",
    body(markdown, charts).trim(),
    "</main>",
    "</body>",
    "</html>",
    "",
  ].join("\n");
}

/** Images become the charts that they name; HTML in the Markdown becomes text; links lead to the web or nowhere. */
function body(markdown: string, charts: readonly Chart[]): string {
  const byName = new Map(charts.map((chart) => [chart.name, chart]));
  const marked = new Marked({
    gfm: true,
    renderer: {
      html: ({ text }) => escapeHtml(text),
      image: ({ href, text }) => {
        const chart = byName.get(href);
        if (chart === undefined) return escapeHtml(text);
        return `<span class="chart" role="img" aria-label="${escapeHtml(chart.alt)}">${chart.svg}</span>`;
      },
      link({ href, tokens }) {
        const label = this.parser.parseInline(tokens);
        return /^https?:/.test(href) ? `<a href="${escapeHtml(href)}">${label}</a>` : label;
      },
      table(token) {
        const cell = (content: string, align: string | null, tag: "td" | "th"): string =>
          `<${tag}${align === null ? "" : ` class="${align}"`}>${content}</${tag}>`;
        const line = (cells: typeof token.header, tag: "td" | "th"): string =>
          `<tr>${cells.map(({ tokens, align }) => cell(this.parser.parseInline(tokens), align, tag)).join("")}</tr>`;
        const rows = token.rows.map((cells) => line(cells, "td")).join("\n");
        return `<div class="table"><table>\n<thead>${line(token.header, "th")}</thead>\n<tbody>\n${rows}\n</tbody>\n</table></div>\n`;
      },
    },
  });
  return marked.parse(markdown, { async: false });
}

function pageStyle(): string {
  const variables = (pick: (color: string) => string): string =>
    Object.entries(colors)
      .map(([name, color]) => `--${name}:${pick(color)}`)
      .join(";");
  return `
:root{color-scheme:light dark;${variables((color) => color)}}
@media screen and (prefers-color-scheme:dark){:root{${variables(darkColor)}}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI","Liberation Sans",Arial,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-bottom:.25rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
p,ul{margin:.75rem 0}
p,li{overflow-wrap:anywhere}
p,ul,pre{max-width:60rem}
p:has(.chart){max-width:none}
ul{padding-left:1.25rem}
a{color:var(--link)}
code,pre{font:.85em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
code{overflow-wrap:anywhere}
pre{margin:.75rem 0;padding:.75rem;border:1px solid var(--rule);border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}
.chart{display:inline-block;max-width:100%;margin:.5rem 1rem .5rem 0;vertical-align:top}
.chart svg{display:block;max-width:100%;height:auto}
@media (max-width:44rem){.chart{display:block;margin-right:0;overflow-x:auto}.chart svg{min-width:26rem}}
.table{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.8125rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .45rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top;white-space:nowrap}
td:last-child{white-space:normal;min-width:9rem}
th{font-weight:600;color:var(--faint)}
.right{text-align:right}
@media print{main{max-width:none;padding:0}h2,h3{break-after:avoid}.chart,tr,pre{break-inside:avoid}.table{overflow:visible}th,td{white-space:normal}}
`;
}

function escapeHtml(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
