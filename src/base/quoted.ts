/**
 * Text that somebody else wrote, made fit for a message or a table: control characters become visible escapes, long
 * values lose their middle. A file can then neither drive the terminal nor flood it.
 */

/** Characters of one value that a message repeats. */
const LONGEST_VALUE = 200;
/** Characters of a whole message. */
const LONGEST_MESSAGE = 2000;
/** Characters of a table's cell: the pattern of a model with hundreds of layers still fits. */
const LONGEST_CELL = 400;

/**
 * What a terminal obeys instead of showing: C0, DEL and C1 controls, line and paragraph separators, marks that change
 * the direction of writing, and halves of surrogate pairs.
 */
const unshowable =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const shortEscapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeCharacter(character: string): string {
  return shortEscapes[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** One line of visible characters. */
export function escapeControls(text: string): string {
  return text.replace(unshowable, escapeCharacter);
}

/** The same with line breaks and tabs left as they are: for text of several lines, JSON included. */
export function escapeForTerminal(text: string): string {
  return text.replace(unshowable, (character) =>
    character === "\n" || character === "\t" ? character : escapeCharacter(character),
  );
}

/** At most about `most` characters: the beginning, how many are left out, the end. */
function cutMiddle(text: string, most: number): string {
  if (text.length <= most) return text;
  const head = Math.floor(most * 0.7);
  const tail = most - head;
  const left = (text.length - most).toLocaleString("en-US");
  return `${text.slice(0, head)}… (${left} more characters) …${text.slice(-tail)}`;
}

/** A foreign value in quotation marks, escaped and cut. Every value of a file that a message repeats goes through it. */
export function quoted(value: unknown, most: number = LONGEST_VALUE): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  return `"${escapeControls(cutMiddle(text, most))}"`;
}

/** The first few of a list of foreign names, quoted, and how many more there are: `"a", "b" and 7 more`. */
export function quotedList(names: readonly string[], most = 12): string {
  const shown = names.slice(0, most).map((name) => quoted(name, 60));
  if (names.length > most) return `${shown.join(", ")} and ${(names.length - most).toLocaleString("en-US")} more`;
  return shown.join(", ");
}

/**
 * A message of one line, whatever was put into it: what stands in quotation marks is cut first, so that the sentence
 * around it survives.
 */
export function messageLine(message: string): string {
  const cut =
    message.length <= LONGEST_VALUE
      ? message
      : message.replace(/"[^"]*"/g, (value) =>
          value.length <= LONGEST_VALUE + 50 ? value : `"${cutMiddle(value.slice(1, -1), LONGEST_VALUE)}"`,
        );
  return escapeControls(cutMiddle(cut, LONGEST_MESSAGE));
}

/** A cell of a table or a field of a list: one line, of bounded width. */
export function cellText(text: string): string {
  return escapeControls(cutMiddle(text, LONGEST_CELL));
}
