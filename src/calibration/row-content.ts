/**
 * What a row of a data set holds to calibrate on: a text, token ids, or a conversation. Rows come in the shapes that data
 * sets of the hub have; which one was recognised is said, and a row that fits none is told of with its fields.
 */
import { quoted, quotedList } from "../base/quoted.ts";

/** A turn of a conversation as chat templates take it; other fields, such as `tool_calls`, are passed on. */
export interface Turn {
  role: string;
  content: string;
}

export type RowContent =
  /** `answerAt`: the character at which the completion of a prompt begins, in a text that has one. */
  { text: string; answerAt?: number } | { ids: readonly number[] } | { messages: readonly Turn[] };

export type RowReading =
  /** `from` says what was read: `"text"`, `conversations ("messages")`. */
  | { content: RowContent; from: string }
  /** There is nothing in the row, and why. */
  | { empty: string }
  /** It is of no shape that is known, and what it has. */
  | { unknown: string };

type Row = Readonly<Record<string, unknown>>;

const idFields = ["input_ids", "token_ids", "tokens"];
const conversationFields = ["messages", "conversations", "conversation", "dialogue", "dialog"];
const answerFields = ["output", "response", "completion", "answer", "answers", "solution", "chosen"];
const questionFields = ["question", "query", "problem", "input"];
const contextFields = ["context", "passage", "story", "document", "article"];
/** The text itself, in data sets that call it otherwise; the first that is there. */
const textFields = [
  "content",
  "document",
  "article",
  "passage",
  "context",
  "body",
  "raw_content",
  "story",
  "code",
  "markdown",
  "transcript",
  "abstract",
  "sentence",
  "page_content",
  "chosen",
  "prompt",
  "completion",
  "response",
  "output",
];

/** Every field that is looked at: what a reader of columns has to read. */
export const knownFields: readonly string[] = [
  ...new Set([
    "text",
    "attention_mask",
    "system",
    "instruction",
    "prompt",
    ...idFields,
    ...conversationFields,
    ...answerFields,
    ...questionFields,
    ...contextFields,
    ...textFields,
  ]),
];

/** For hints: what is read without a choice. */
export const readShapes =
  'read without it are "text", "input_ids", conversations ("messages", "conversations"), instructions, prompts and questions with their answers (docs/data.md)';

/** The content of a row, by its shape. */
export function readRow(row: unknown): RowReading {
  const whole = readWhole(row);
  if (whole !== undefined) return whole;
  const fields = row as Row;
  for (const shape of [plainText, tokenIds, conversation, instruction, promptAndAnswer, questionAndAnswer, otherText]) {
    const reading = shape(fields);
    if (reading !== undefined) return reading;
  }
  const blank = knownFields.filter((name) => Object.hasOwn(fields, name) && name !== "attention_mask");
  if (blank.length > 0) return { empty: `nothing in ${quotedList(blank, 4)}` };
  const names = Object.keys(fields);
  return {
    unknown: names.length === 0 ? "has no fields" : `has no text that is known: its fields are ${quotedList(names)}`,
  };
}

/** The content of one field; a dot leads into a nested one, unless the name itself has it. */
export function readColumn(row: unknown, column: string): RowReading {
  if (row === null || typeof row !== "object" || Array.isArray(row)) {
    return { unknown: `has no field ${quoted(column)}: it is ${describeKind(row)}` };
  }
  const found = valueAt(row as Row, column);
  if (found === undefined) {
    return { unknown: `has no field ${quoted(column)}; its fields are ${quotedList(Object.keys(row))}` };
  }
  return readValue(found.value, quoted(column));
}

function valueAt(row: Row, column: string): { value: unknown } | undefined {
  if (Object.hasOwn(row, column)) return { value: row[column] };
  let value: unknown = row;
  for (const part of column.split(".")) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, part)) return undefined;
    value = (value as Row)[part];
  }
  return { value };
}

/** A row without fields: a text, a list of ids, or a list of turns. */
function readWhole(row: unknown): RowReading | undefined {
  if (typeof row === "string")
    return isBlank(row) ? { empty: "an empty text" } : { content: { text: row }, from: "texts" };
  if (Array.isArray(row)) return readValue(row, "lists");
  if (row === null) return { empty: "null" };
  return typeof row === "object" ? undefined : { unknown: `is ${describeKind(row)}, and no row with fields` };
}

/** A text, list of texts, list of ids or conversation, whatever its name. */
function readValue(value: unknown, from: string): RowReading {
  if (value === null || value === undefined) return { empty: `null in ${from}` };
  const messages = turnsOf(value);
  if (messages !== undefined) return { content: { messages }, from: `conversations (${from})` };
  if (Array.isArray(value) && value.length > 0) {
    const ids = idsOf(value);
    if (ids !== undefined) return { content: { ids }, from };
  }
  const text = textOf(value);
  if (text === undefined) return { unknown: `${from} holds ${describeKind(value)}, no text and no token ids` };
  if (isBlank(text)) return { empty: `nothing in ${from}` };
  return { content: { text }, from: typeof value === "string" ? from : `the joined texts of ${from}` };
}

function plainText(row: Row): RowReading | undefined {
  return isFilled(row, "text") ? readValue(row.text, '"text"') : undefined;
}

function tokenIds(row: Row): RowReading | undefined {
  const name = idFields.find((field) => isFilled(row, field));
  if (name === undefined) return undefined;
  const ids = idsOf(row[name]);
  if (ids === undefined) return { unknown: `${quoted(name)} holds something else than token ids` };
  const mask = row.attention_mask;
  if (!Array.isArray(mask) || mask.length !== ids.length || mask.every((kept) => kept === 1)) {
    return { content: { ids }, from: quoted(name) };
  }
  const kept = ids.filter((_, i) => mask[i] !== 0);
  if (kept.length === 0) return { empty: 'every token masked by "attention_mask"' };
  return { content: { ids: kept }, from: `${quoted(name)} without what "attention_mask" masks` };
}

function conversation(row: Row): RowReading | undefined {
  const name = conversationFields.find((field) => isFilled(row, field));
  if (name === undefined) return undefined;
  const reading = readValue(row[name], quoted(name));
  if (!("content" in reading) || !("messages" in reading.content)) return reading;
  return { ...reading, content: { messages: withSystem(row, reading.content.messages) } };
}

/** Alpaca's and Dolly's shape. */
function instruction(row: Row): RowReading | undefined {
  const asked = filledText(row, ["instruction"]);
  if (asked === undefined) return undefined;
  const more = filledText(row, ["input", ...contextFields]);
  const user = more === undefined ? asked.text : `${asked.text}\n\n${more.text}`;
  return answered(row, user, "instructions", [asked.name, more?.name]);
}

function promptAndAnswer(row: Row): RowReading | undefined {
  if (!isFilled(row, "prompt")) return undefined;
  const name = answerFields.find((field) => isFilled(row, field));
  if (name === undefined) return undefined;
  const from = `prompts ("prompt", ${quoted(name)})`;
  const before = turnsOf(row.prompt);
  const after = turnsOf(row[name]);
  if (after !== undefined) {
    // A preference set can repeat the prompt in its answers.
    const first = after[0]?.role === "assistant" ? (before ?? userTurn(textOf(row.prompt) ?? "")) : [];
    return { content: { messages: withSystem(row, [...first, ...after]) }, from };
  }
  const answer = answerText(row[name]);
  if (answer === undefined) return undefined;
  if (before !== undefined) return { content: { messages: [...before, assistant(answer)] }, from };
  const prompt = textOf(row.prompt);
  if (prompt === undefined) return undefined;
  if (name !== "completion") return answered(row, prompt, "prompts", ["prompt"]);
  // A completion goes on where its prompt ends: no turns.
  const seam = /\s$/.test(prompt) || /^\s/.test(answer) ? "" : "\n";
  return { content: { text: prompt + seam + answer, answerAt: prompt.length }, from };
}

function questionAndAnswer(row: Row): RowReading | undefined {
  const asked = filledText(row, questionFields);
  if (asked === undefined || !answerFields.some((field) => Object.hasOwn(row, field))) return undefined;
  const context = contextFields.find((field) => isFilled(row, field));
  const passage = context === undefined ? undefined : passageText(row[context]);
  const user = passage === undefined ? asked.text : `${passage}\n\n${asked.text}`;
  return answered(row, user, "questions", [passage === undefined ? undefined : context, asked.name]);
}

function otherText(row: Row): RowReading | undefined {
  const name = textFields.find((field) => isFilled(row, field));
  return name === undefined ? undefined : readValue(row[name], quoted(name));
}

/** A user's turn, and the assistant's where the row has an answer. */
function answered(row: Row, user: string, kind: string, names: readonly (string | undefined)[]): RowReading {
  const name = answerFields.find((field) => isFilled(row, field) && answerText(row[field]) !== undefined);
  const answer = name === undefined ? undefined : answerText(row[name]);
  const used = [...names, name].filter((field) => field !== undefined).map((field) => quoted(field));
  const turns = [...userTurn(user), ...(answer === undefined ? [] : [assistant(answer)])];
  return { content: { messages: withSystem(row, turns) }, from: `${kind} (${used.join(", ")})` };
}

function withSystem(row: Row, turns: readonly Turn[]): Turn[] {
  const { system } = row;
  if (typeof system !== "string" || isBlank(system) || turns[0]?.role === "system") return [...turns];
  return [{ role: "system", content: system }, ...turns];
}

const userTurn = (content: string): Turn[] => [{ role: "user", content }];
const assistant = (content: string): Turn => ({ role: "assistant", content });

/** Roles by the names that ShareGPT and its like give them. */
const roles: Readonly<Record<string, string>> = {
  human: "user",
  prompter: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  model: "assistant",
  bot: "assistant",
  bing: "assistant",
  bard: "assistant",
  function: "tool",
  observation: "tool",
};

/** The turns of a list of messages, also where a cell of CSV has them as JSON; undefined for anything else. */
function turnsOf(value: unknown): Turn[] | undefined {
  if (typeof value === "string" && /^\s*\[\s*\{/.test(value)) {
    try {
      return turnsOf(JSON.parse(value));
    } catch {
      return undefined;
    }
  }
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const turns: Turn[] = [];
  for (const item of value) {
    if (item === null || typeof item !== "object") return undefined;
    const { role, from, content, value: said, text, ...more } = item as Record<string, unknown>;
    const speaker = role ?? from;
    const words = partsText(content ?? said ?? text ?? (Object.hasOwn(more, "tool_calls") ? "" : undefined));
    if (typeof speaker !== "string" || words === undefined) return undefined;
    // Parquet fills the fields that a turn does not have.
    const filled = Object.fromEntries(
      Object.entries(more).filter(([, field]) => field !== null && field !== undefined),
    );
    turns.push({ ...filled, role: roles[speaker.toLowerCase()] ?? speaker.toLowerCase(), content: words });
  }
  return turns;
}

/** A content in parts, as OpenAI's API has it; undefined where one is no text. */
function partsText(content: unknown): string | undefined {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return undefined;
  const texts = content.map((part: unknown) =>
    part !== null && typeof part === "object" && "text" in part && typeof part.text === "string"
      ? part.text
      : undefined,
  );
  return texts.every((text) => text !== undefined) ? texts.join("") : undefined;
}

function idsOf(value: unknown): number[] | undefined {
  // A batch of one.
  if (Array.isArray(value) && value.length === 1 && Array.isArray(value[0])) return idsOf(value[0]);
  if (!Array.isArray(value) || !value.every((id) => Number.isSafeInteger(id))) return undefined;
  return value as number[];
}

/** A text, the paragraphs of one, or the one text inside an object. */
function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    return value.every((part) => typeof part === "string") ? value.join("\n\n") : undefined;
  }
  if (value === null || typeof value !== "object") return undefined;
  const name = ["text", "content", "value"].find((field) => Object.hasOwn(value, field));
  return name === undefined ? undefined : textOf((value as Row)[name]);
}

/** An answer as QA sets write it: a text, several of which the first is taken, or an object around them. */
function answerText(value: unknown): string | undefined {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") return isBlank(value) ? undefined : value;
  if (Array.isArray(value)) return value.length === 0 ? undefined : answerText(value[0]);
  if (value === null || typeof value !== "object") return undefined;
  for (const field of ["text", "value", "answer", "content"]) {
    if (Object.hasOwn(value, field)) return answerText((value as Row)[field]);
  }
  return undefined;
}

/** A passage, also as HotpotQA has them: titles and their sentences. */
function passageText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.flat(2).join("\n");
  if (value === null || typeof value !== "object") return undefined;
  const { title, sentences } = value as Row;
  if (!Array.isArray(title) || !Array.isArray(sentences)) return undefined;
  return title.map((name, i) => `${name}\n${[sentences[i]].flat(2).join("")}`).join("\n\n");
}

function filledText(row: Row, names: readonly string[]): { name: string; text: string } | undefined {
  for (const name of names) {
    const text = isFilled(row, name) ? textOf(row[name]) : undefined;
    if (text !== undefined) return { name, text };
  }
  return undefined;
}

function isFilled(row: Row, name: string): boolean {
  if (!Object.hasOwn(row, name)) return false;
  const value = row[name];
  if (value === null || value === undefined) return false;
  if (typeof value === "string") return !isBlank(value);
  return !Array.isArray(value) || value.length > 0;
}

function isBlank(text: string): boolean {
  return text.trim() === "";
}

function describeKind(value: unknown): string {
  if (Array.isArray(value)) return "a list of other things";
  if (value === null) return "null";
  return typeof value === "object" ? `an object with ${quotedList(Object.keys(value), 6)}` : `a ${typeof value}`;
}
