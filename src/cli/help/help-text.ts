/** The prose of `--help`: paragraphs, lists of words and their meaning, and examples, within the columns of a terminal. */

import { wrapWords } from "../../report/text-table.ts";

/** Columns of help: what every terminal has. */
const COLUMNS = 80;

/**
 * Fits text that was written without regard to columns. Lines that are not indented are paragraphs and flow; an indented
 * line is an item (`  name   meaning`), whose meaning flows beside its name; `  $ ...` is a command, which goes on in the
 * next line after a backslash.
 */
export function helpText(text: string): string {
  const out: string[] = [];
  let paragraph: string[] = [];
  const flush = (): void => {
    if (paragraph.length > 0) out.push(...flow(paragraph.join(" "), "", ""));
    paragraph = [];
  };
  for (const line of text.split("\n")) {
    if (line.startsWith(" ") || line === "") {
      flush();
      out.push(...(line === "" ? [""] : line.startsWith("  $ ") ? command(line) : item(line)));
    } else {
      paragraph.push(line);
    }
  }
  flush();
  return out.join("\n");
}

function item(line: string): string[] {
  const [, term = "", meaning = ""] = /^( +\S.*? {2,})(\S.*)$/.exec(line) ?? [];
  if (meaning === "") {
    const indent = /^ */.exec(line)?.[0] ?? "";
    return flow(line.trim(), indent, indent);
  }
  return flow(meaning, term, " ".repeat(term.length));
}

/** A command that is too long is cut before an option, or else a word; its comment (after two spaces) gets a line. */
function command(line: string): string[] {
  if (line.length <= COLUMNS) return [line];
  const [, words = line, comment] = /^(.*?\S) {2,}(\S.*)$/.exec(line.slice(4)) ?? [undefined, line.slice(4)];
  if (comment !== undefined && words.length + comment.length + 6 <= COLUMNS) return [`  $ ${words}  ${comment}`];
  const lines: string[] = [];
  let current = "  $";
  // Two columns are for the backslash, six for the indentation.
  const parts = words.split(/ (?=-)/).flatMap((part) => (part.length > COLUMNS - 8 ? part.split(" ") : [part]));
  for (const part of parts) {
    if (current.length + 1 + part.length > COLUMNS - 2) {
      lines.push(`${current} \\`);
      current = "     ";
    }
    current += ` ${part}`;
  }
  lines.push(current);
  return comment === undefined ? lines : [...lines, `      (${comment})`];
}

/** @param first stands in the place of the indentation of the first line */
function flow(text: string, first: string, indent: string): string[] {
  const [line = "", ...rest] = wrapWords(text.replace(/ +/g, " "), COLUMNS, indent);
  return [first + line.slice(indent.length), ...rest];
}
