/** Markdown of a report. Text from files is escaped: a model or a file may be called anything. */
import { type Columns, type Heading, type Tabled, tableCells } from "../text-table.ts";

/** Text as it stands, with no letter of it read as Markdown or HTML. */
export function text(value: string): string {
  return value.replaceAll(/\s+/g, " ").replaceAll(/[\\`*_{}[\]<>#|&~!]/g, "\\$&");
}

/** `code` within a line; with a bar in it plain text, because tables and code read bars in different ways. */
export function code(value: string): string {
  if (value.includes("|")) return text(value);
  const longest = Math.max(0, ...[...value.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  const pad = value.startsWith("`") || value.endsWith("`") ? " " : "";
  return `${fence}${pad}${value.replaceAll(/\s+/g, " ")}${pad}${fence}`;
}

/** Lines of code. */
export function codeBlock(language: string, lines: readonly string[]): string {
  const longest = Math.max(2, ...[...lines.join("\n").matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${lines.join("\n")}\n${fence}`;
}

/** A table with a row for each item; titles and cells are Markdown already. */
export function table<T>(items: readonly T[], columns: Columns<T>): string {
  const { columns: headings, rows } = tableCells(items, columns);
  return grid(headings, rows);
}

/** A table of plain text, with what stands above and below it. */
export function tabledBlock({ title, columns, rows, notes }: Tabled): string {
  const cells = rows.map((row) =>
    row.map((cell, at) => (cell !== "" && columns[at]?.isCode === true ? code(cell) : text(cell))),
  );
  return blocks(title === "" ? undefined : `${text(title)}:`, grid(columns, cells), bullets(notes.map(text)));
}

function grid(headings: readonly Heading[], rows: readonly string[][]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    line(headings.map(({ title }) => title)),
    line(headings.map(({ align }) => (align === "right" ? "--:" : "---"))),
    ...rows.map(line),
  ].join("\n");
}

/** Paragraphs, tables and charts one below the other. */
export function blocks(...parts: readonly (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== "").join("\n\n");
}

export function bullets(lines: readonly string[]): string {
  return lines.map((line) => `- ${line}`).join("\n");
}
