/** Patterns as strips of letters, one below the other. */
import { type Chart, drawChart } from "./chart.ts";
import { faintInk, fullColor, ink, paper, sharedColor } from "./palette.ts";

const WIDEST = 860;
/** Cells below this width have no letter. */
const LETTER_WIDTH = 9;

export function stripChart(patterns: readonly { name: string; pattern: string }[]): Promise<Chart> {
  const layers = Math.max(...patterns.map(({ pattern }) => pattern.length));
  const cell = Math.min(34, Math.floor(WIDEST / layers));
  const values = patterns.flatMap(({ name, pattern }) =>
    [...pattern].map((letter, layer) => ({ name, layer, letter, kind: letter === "F" ? "Full" : "Shared" })),
  );
  const names = patterns.map(({ name }) => name);
  const every = layers > 24 ? 10 : 1;
  return drawChart("patterns", `Full and Shared layers of ${names.join(", ")}`, {
    data: { values },
    width: { step: cell },
    height: { step: Math.max(cell, 22) },
    encoding: {
      x: {
        field: "layer",
        type: "ordinal",
        title: "layer",
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
        axis: { domain: false, ticks: false, labelPadding: 6, labelLimit: 160 },
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
