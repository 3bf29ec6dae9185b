/** Plain-text tables: no lines, no colour, so that they read the same on a terminal, in a log and in an issue. */
import { cellText } from "../base/quoted.ts";

export interface Column {
  title: string;
  /** Numbers to the right, so that their digits stand under each other. */
  align?: "left" | "right";
}

/** Rows under titles, columns two blanks apart, no blanks at line ends. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title), ...rows].map((line) => line.map(cellText));
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => displayWidth(line[index] ?? ""))));
  return lines
    .map((line) =>
      columns
        .map(({ align }, index) => {
          const cell = line[index] ?? "";
          const blanks = " ".repeat((widths[index] ?? 0) - displayWidth(cell));
          return align === "right" ? blanks + cell : cell + blanks;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Names on the left, values on the right of them; entries without a value are left out. */
export function formatFields(fields: readonly (readonly [name: string, value: string | undefined])[]): string {
  const present = fields.flatMap(([name, value]) => (value === undefined ? [] : [[name, cellText(value)] as const]));
  const width = Math.max(0, ...present.map(([name]) => name.length));
  return present.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}

/** Characters, not UTF-16 units. */
function displayWidth(text: string): number {
  return [...text].length;
}
