/** Patterns as strips of letters, one below the other; longer ones in several rows, so that letters stay readable. */
import { type Chart, drawChart } from "./chart.ts";
import { faintInk, fullColor, ink, paper, sharedColor } from "./palette.ts";

const WIDEST = 860;
/** More layers than this go on in another row. */
const LAYERS_OF_A_ROW = 32;
/** Cells below this width have no letter. */
const LETTER_WIDTH = 9;

/** Cells of this width have a number of up to three digits. */
const NUMBER_WIDTH = 20;

interface Strip {
  name: string;
  pattern: string;
  /** For each layer, the share of resampled searches in which it is Full: a row of its own below. */
  full?: readonly number[] | undefined;
}

interface Row {
  title: string;
  letters: string;
  full?: readonly number[];
}

export function stripChart(patterns: readonly Strip[]): Promise<Chart> {
  const most = Math.max(...patterns.map(({ pattern }) => pattern.length));
  // Rows of one length, or nearly so.
  const layers = Math.ceil(most / Math.ceil(most / LAYERS_OF_A_ROW));
  const cell = Math.min(34, Math.floor(WIDEST / layers));
  const rows = patterns.flatMap((strip) => rowsOf(strip, layers));
  const values = rows.flatMap(({ title, letters, full }) =>
    [...letters].map((letter, layer) => {
      const cell = { name: title, layer };
      const share = full?.[layer];
      if (share === undefined) return { ...cell, letter, kind: letter === "F" ? "Full" : "Shared" };
      return { ...cell, share, percent: String(Math.round(100 * share)) };
    }),
  );
  const hasShares = rows.some(({ full }) => full !== undefined);
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
        transform: [{ filter: "isValid(datum.kind)" }],
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
              transform: [{ filter: "isValid(datum.kind)" }],
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
      ...(hasShares
        ? [
            {
              transform: [{ filter: "isValid(datum.share)" }],
              mark: { type: "rect" as const, cornerRadius: 2, color: fullColor },
              encoding: {
                opacity: {
                  field: "share",
                  type: "quantitative" as const,
                  scale: { domain: [0, 1], range: [0.06, 1] },
                  legend: null,
                },
              },
            },
          ]
        : []),
      ...(hasShares && cell >= NUMBER_WIDTH
        ? [
            {
              transform: [{ filter: "isValid(datum.share)" }],
              mark: { type: "text" as const, fontSize: 10 },
              encoding: {
                text: { field: "percent", type: "nominal" as const },
                color: { condition: { test: "datum.share > 0.5", value: paper }, value: ink },
              },
            },
          ]
        : []),
    ],
  });
}

/** A pattern in rows of so many layers, each by the layers that it holds, and below each how often its layers are Full. */
function rowsOf({ name, pattern, full }: Strip, layers: number): Row[] {
  const rows: Row[] = [];
  for (let from = 0; from < pattern.length; from += layers) {
    const letters = pattern.slice(from, from + layers);
    const range = `${from} to ${from + letters.length - 1}`;
    const title = pattern.length <= layers ? name : `${name}: ${range}`;
    rows.push({ title, letters });
    if (full === undefined) continue;
    const shares = full.slice(from, from + layers);
    rows.push({ title: `${title}, Full in % of resamples`, letters, full: shares });
  }
  return rows;
}
