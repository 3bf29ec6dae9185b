/** Patterns as strips of letters, one below the other; longer ones in several rows, so that letters stay readable. */
import { type Chart, drawChart } from "./chart.ts";
import { faintInk, fullColor, ink, paper, sharedColor } from "./palette.ts";

const WIDEST = 860;
/** More layers than this go on in another row. */
const LAYERS_OF_A_ROW = 32;
/** Cells below this width have no letter. */
const LETTER_WIDTH = 9;

export function stripChart(patterns: readonly { name: string; pattern: string }[]): Promise<Chart> {
  const most = Math.max(...patterns.map(({ pattern }) => pattern.length));
  // Rows of one length, or nearly so.
  const layers = Math.ceil(most / Math.ceil(most / LAYERS_OF_A_ROW));
  const cell = Math.min(34, Math.floor(WIDEST / layers));
  const rows = patterns.flatMap(({ name, pattern }) => rowsOf(name, pattern, layers));
  const values = rows.flatMap(({ title, letters }) =>
    [...letters].map((letter, layer) => ({ name: title, layer, letter, kind: letter === "F" ? "Full" : "Shared" })),
  );
  const names = rows.map(({ title }) => title);
  const every = layers > 24 && layers === most ? 10 : 1;
  return drawChart("patterns", `Full and Shared layers of ${patterns.map(({ name }) => name).join(", ")}`, {
    data: { values },
    width: { step: cell },
    height: { step: Math.max(cell, 22) },
    encoding: {
      x: {
        field: "layer",
        type: "ordinal",
        title: layers === most ? "layer" : "layer, counted from the first of the row",
        scale: { paddingInner: layers > 40 ? 0.05 : 0.08, paddingOuter: 0 },
        axis: {
          domain: false,
          ticks: false,
          labelAngle: 0,
          values: Array.from({ length: layers }, (_, layer) => layer).filter((layer) => layer % every === 0),
        },
      },
      y: {
        field: "name",
        type: "nominal",
        title: null,
        sort: names,
        axis: { domain: false, ticks: false, labelPadding: 6, labelLimit: 200 },
        scale: { paddingInner: 0.15 },
      },
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 2 },
        encoding: {
          color: {
            field: "kind",
            type: "nominal",
            title: null,
            scale: { domain: ["Full", "Shared"], range: [fullColor, sharedColor] },
            legend: layers * cell < 200 ? null : { orient: "top", symbolType: "square" },
          },
        },
      },
      ...(cell < LETTER_WIDTH
        ? []
        : [
            {
              mark: { type: "text" as const, fontSize: Math.min(12, cell), font: "monospace" },
              encoding: {
                text: { field: "letter", type: "nominal" as const },
                color: {
                  condition: { test: "datum.letter === 'F'", value: paper },
                  value: cell < 14 ? faintInk : ink,
                },
              },
            },
          ]),
    ],
  });
}

/** A pattern in rows of so many layers, each by the layers that it holds. */
function rowsOf(name: string, pattern: string, layers: number): { title: string; letters: string }[] {
  if (pattern.length <= layers) return [{ title: name, letters: pattern }];
  const rows: { title: string; letters: string }[] = [];
  for (let from = 0; from < pattern.length; from += layers) {
    const letters = pattern.slice(from, from + layers);
    rows.push({ title: `${name}: ${from} to ${from + letters.length - 1}`, letters });
  }
  return rows;
}
