/**
 * Colours of charts and pages. Series colours are Okabe and Ito's, which colour-blind readers tell apart; heatmaps use
 * cividis, which grows lighter evenly for everybody and prints in grey. Charts carry the light colours; a style sheet of
 * attribute selectors exchanges them where the reader's system is dark, inside a page and in an SVG file alike.
 */

export const ink = "#1c2024";
export const faintInk = "#5a6370";
export const rule = "#d3d8de";
export const paper = "#ffffff";

export const seriesColors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a07500", "#56b4e9", "#7a5195"] as const;

/** Full and Shared in strips. The letters are in the cells, so that colour is not needed. */
export const fullColor = "#0b5394";
export const sharedColor = "#e3e9f0";

/** Rings on heatmaps, one inside the other: seen on every colour of the scale, and left alone in the dark. */
export const ringLight = "#fefefe";
export const ringDark = "#010101";

const darkOf: Readonly<Record<string, string>> = {
  [ink]: "#e8ebee",
  [faintInk]: "#a3acb7",
  [rule]: "#3a4149",
  [paper]: "#14171a",
  [seriesColors[0]]: "#4fb0f0",
  [seriesColors[1]]: "#ff8c42",
  [seriesColors[2]]: "#37cfa0",
  [seriesColors[3]]: "#e9a5cb",
  [seriesColors[4]]: "#e3b341",
  [seriesColors[5]]: "#9bd5f7",
  [seriesColors[6]]: "#b797d6",
  [fullColor]: "#6cb6ff",
  [sharedColor]: "#2a3037",
};

/** The dark colour that stands for a light one. */
export function darkColor(light: string): string {
  return darkOf[light] ?? light;
}

/** CSS that turns charts dark; in print they stay as they are. */
export function darkChartStyle(): string {
  const rules = Object.entries(darkOf).map(
    ([light, dark]) => `svg [fill="${light}"]{fill:${dark}}svg [stroke="${light}"]{stroke:${dark}}`,
  );
  return `@media screen and (prefers-color-scheme:dark){${rules.join("")}}`;
}
