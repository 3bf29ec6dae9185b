/** Plain-text tables: no lines, no colour, so that they read the same on a terminal, in a log and in an issue. */
import { cellText } from "../base/quoted.ts";

/** How a column is headed and laid out. */
export interface Heading {
  title: string;
  /** Numbers to the right, so that their digits stand under each other. */
  align?: "right";
  /**
   * Where the cells go if the table is wider than it may be: on a line above the rows that they stand for (empty cells
   * belong to the row before), or on one below their row; `late` ones only if the table is too wide even then.
   */
  fold?: "above" | "below" | "late";
  /** Word before a folded cell; the title where none is given. */
  label?: string;
  /** Letters of a pattern, which Markdown has as code. */
  isCode?: true;
}

/** A column of a table that has a row for each of some items: its heading, and what it says of an item. */
export interface Column<T> extends Heading {
  cell(item: T, index: number): string;
}

/** Columns in their order; those that are false are left out. */
export type Columns<T> = readonly (Column<T> | false)[];

export function left<T>(title: string, cell: Column<T>["cell"], folding: Partial<Heading> = {}): Column<T> {
  return { title, cell, ...folding };
}

export function right<T>(title: string, cell: Column<T>["cell"], folding: Partial<Heading> = {}): Column<T> {
  return { title, cell, align: "right", ...folding };
}

/** The columns that a table has, and the cells of its rows. */
export function tableCells<T>(items: readonly T[], columns: Columns<T>): { columns: Column<T>[]; rows: string[][] } {
  const present = columns.filter((column) => column !== false);
  return { columns: present, rows: items.map((item, index) => present.map(({ cell }) => cell(item, index))) };
}

/**
 * A row for each item under titles, columns two blanks apart, no blanks at line ends.
 * @param width columns of the terminal, within which the table is folded; undefined is a file or pipe, which is never folded
 */
export function formatTable<T>(items: readonly T[], columns: Columns<T>, width?: number): string {
  const { columns: headings, rows } = tableCells(items, columns);
  return foldToFit(headings, rows, width);
}

function foldToFit(headings: readonly Heading[], rows: readonly (readonly string[])[], width?: number): string {
  const plain = layOut(headings, rows);
  if (width === undefined || fits(plain, width)) return plain;
  const folded = foldedTable(width, headings, rows, ["above", "below"]);
  return fits(folded, width) ? folded : foldedTable(width, headings, rows, ["above", "below", "late"]);
}

/** A table that a terminal and a report both show, in plain text. */
export interface Tabled {
  /** Empty where what stands above it says enough. */
  title: string;
  columns: readonly Heading[];
  rows: readonly string[][];
  /** Lines below it. */
  notes: readonly string[];
}

export function tabled<T>(
  title: string,
  items: readonly T[],
  columns: Columns<T>,
  notes: readonly string[] = [],
): Tabled {
  return { title, ...tableCells(items, columns), notes };
}

/** @param width as `formatTable` takes it; title and notes are broken between words */
export function formatTabled({ title, columns, rows, notes }: Tabled, width?: number): string {
  const words = (text: string): string[] => (width === undefined ? [text] : wrapWords(text, width));
  return [...(title === "" ? [] : words(title)), foldToFit(columns, rows, width), ...notes.flatMap(words)].join("\n");
}

function layOut(columns: readonly Heading[], rows: readonly (readonly string[])[]): string {
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

function fits(text: string, width: number): boolean {
  return text.split("\n").every((line) => displayWidth(line) <= width);
}

function foldedTable(
  width: number,
  columns: readonly Heading[],
  rows: readonly (readonly string[])[],
  folds: readonly Heading["fold"][],
): string {
  const places = columns.map(({ fold }) => (fold !== undefined && folds.includes(fold) ? fold : "row"));
  const cellsAt = (row: readonly string[], which: (place: string) => boolean) =>
    columns.flatMap(({ title, label = title }, index) => {
      const cell = row[index] ?? "";
      return which(places[index] as string) && cell !== "" ? [label === "" ? cell : `${label} ${cell}`] : [];
    });
  const kept = columns.filter((_, index) => places[index] === "row");
  const table = layOut(
    kept,
    rows.map((row) => row.filter((_, index) => places[index] === "row")),
  );
  const [titles = "", ...lines] = table.split("\n");
  const above = places.includes("above");
  const indent = above ? "  " : "";
  return [
    indent + titles,
    ...rows.flatMap((row, index) => {
      const heading = cellsAt(row, (place) => place === "above");
      const below = cellsAt(row, (place) => place !== "above" && place !== "row");
      return [
        ...(heading.length === 0 ? [] : [heading.join(", ")]),
        `${indent}${lines[index] ?? ""}`.trimEnd(),
        ...(below.length === 0 ? [] : wrapWords(below.join("; "), width, `${indent}  `)),
      ];
    }),
  ].join("\n");
}

/** Lines of whole words, none longer than `width` where words allow it; `indent` before each. */
export function wrapWords(text: string, width: number, indent = ""): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && displayWidth(indent) + displayWidth(line) + 1 + displayWidth(word) > width) {
      lines.push(indent + line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, indent + line];
}

export type Field = readonly [name: string, value: string | undefined | false];

/**
 * Names on the left, values on the right of them; entries whose value is undefined or false are left out.
 * @param columns that no line exceeds where words, or letters of a pattern, allow it; undefined is a file or pipe
 */
export function formatFields(fields: readonly Field[], columns?: number): string {
  const present = fields.flatMap(([name, value]) =>
    value === undefined || value === false ? [] : [[name, cellText(value)] as const],
  );
  const width = Math.max(0, ...present.map(([name]) => name.length));
  if (columns === undefined) return present.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
  const room = Math.max(1, columns - width - 2);
  const lines = present.flatMap(([name, value]) =>
    wrapWords(value, room)
      .flatMap((line) => cutPattern(line, room))
      .map((line, index) => `${(index === 0 ? name : "").padEnd(width)}  ${line}`),
  );
  return lines.join("\n");
}

/** Characters, not UTF-16 units. */
function displayWidth(text: string): number {
  return [...text].length;
}

/** The letters of a pattern have no blanks to break at. */
function cutPattern(line: string, width: number): string[] {
  if (!/^[FS]+$/.test(line)) return [line];
  return line.match(new RegExp(`.{1,${width}}`, "g")) ?? [line];
}
