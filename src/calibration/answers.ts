/**
 * Answers with their prompts, a sequence each: what `--objective answer` judges patterns by. The answer's tokens count, the
 * prompt only leads to them.
 */
import { InputError } from "../base/errors.ts";
import {
  type CalibrationModel,
  type CalibrationSet,
  chooseLength,
  hashWindows,
  requireSequences,
} from "./calibration-set.ts";
import { type Document, type DocumentOptions, openDocuments } from "./documents.ts";
import type { Turn } from "./row-content.ts";
import { RowAccount, requireInVocabulary } from "./tokenized-documents.ts";
import { choosePlaces } from "./windows.ts";

/** A prompt and the answer that follows it. */
export interface PromptAndAnswer {
  /** Turns before the one that is answered. */
  earlier: readonly Turn[];
  prompt: string;
  answer: string;
  /** Turns of a conversation, which go through the chat template; a completion continues its prompt as it stands. */
  chat: boolean;
}

/** The ids of both together; the answer's begin at `scoredFrom`. */
export interface AnswerSequence {
  ids: ArrayLike<number>;
  scoredFrom: number;
}

export interface AnswerOptions extends DocumentOptions {
  /** Longer sequences are left out. Default: the model's window. */
  sequenceLength?: number | undefined;
  sequences?: number | undefined;
  seed?: number;
  signal?: AbortSignal;
}

/**
 * Reads the records of a source that have answers.
 * @returns undefined for a source of plain text or token ids, which has none
 * @throws InputError for records that cannot be read, and where no sequence fits the model
 */
export async function loadAnswers(
  source: string,
  model: CalibrationModel,
  encode: (record: PromptAndAnswer) => Promise<AnswerSequence>,
  options: AnswerOptions = {},
): Promise<CalibrationSet | undefined> {
  requireSequences(options.sequences);
  const opened = await openDocuments(source, options);
  const account = new RowAccount();
  const found: AnswerSequence[] = [];
  let plain = 0;
  for await (const document of opened.documents()) {
    options.signal?.throwIfAborted();
    account.rows++;
    if ("empty" in document) {
      account.leaveOut(document.where, document.empty);
      continue;
    }
    const record = answerIn(document);
    if (typeof record === "string") {
      if (!("messages" in document)) plain++;
      account.leaveOut(document.where, record);
      continue;
    }
    try {
      const sequence = await encode(record);
      requireInVocabulary(sequence.ids, model.vocabSize, document);
      account.read(document.from);
      found.push(sequence);
    } catch (error) {
      if (!(error instanceof InputError) || !record.chat) throw error;
      account.leaveOut(document.where, error.message);
    }
  }
  if (plain > 0 && plain === account.rows) return undefined;
  const set = answerSet(source, model, found, options);
  const { notes, warnings } = account.describe(opened.leftOut);
  return { ...set, documents: account.rows, notes, warnings: [...warnings, ...set.warnings] };
}

/**
 * A set of answers that fit the model.
 * @throws InputError where none does
 */
export function answerSet(
  source: string,
  model: CalibrationModel,
  found: readonly AnswerSequence[],
  { sequenceLength, sequences, seed = 0 }: Pick<AnswerOptions, "sequenceLength" | "sequences" | "seed">,
): CalibrationSet {
  const longest = sequenceLength === undefined ? model.maxPositionEmbeddings : chooseLength(model, { sequenceLength });
  // Up to this length every row that predicts selects all keys, whatever the pattern.
  const shortest = model.indexTopk + 2;
  const fitting = found.filter(
    ({ ids, scoredFrom }) => ids.length >= shortest && ids.length <= longest && scoredFrom < ids.length,
  );
  const wordless = found.filter(({ ids, scoredFrom }) => scoredFrom >= ids.length).length;
  const short = found.filter(({ ids }) => ids.length < shortest).length;
  const long = found.filter(({ ids }) => ids.length > longest).length;
  const reasons = [
    ...(short === 0 ? [] : [`${short} have at most ${shortest - 1} tokens, where no pattern changes the loss`]),
    ...(long === 0 ? [] : [`${long} have more than ${longest} tokens`]),
    ...(wordless === 0 ? [] : [`${wordless} have no tokens of their own in the answer`]),
  ];
  if (fitting.length === 0) {
    throw new InputError(
      `Calibration set "${source}" has no answer to judge by${reasons.length === 0 ? "" : `: of ${found.length} with their prompts ${reasons.join(", ")}`}`,
      { hint: "records with a prompt and an answer, or conversations, are read (docs/data.md)" },
    );
  }
  const places = choosePlaces(fitting.length, sequences ?? fitting.length, seed);
  const chosen = places.map((place) => fitting[place] as AnswerSequence);
  const windows = chosen.map(({ ids }) => Int32Array.from(ids));
  const scoredFrom = chosen.map((sequence) => sequence.scoredFrom);
  const lengths = windows.map(({ length }) => length);
  return {
    source,
    hash: hashWindows(windows, scoredFrom),
    windows,
    scoredFrom,
    sequenceLength: Math.max(...lengths),
    tokens: lengths.reduce((total, length) => total + length, 0),
    available: fitting.length,
    documents: found.length,
    notes: [],
    warnings: [
      ...(reasons.length === 0
        ? []
        : [`Of ${found.length} answers with their prompts ${reasons.join(", ")}: not used`]),
      ...(sequences === undefined || chosen.length >= sequences
        ? []
        : [`The set gives ${chosen.length} answers, fewer than the ${sequences} asked for`]),
    ],
  };
}

/** The answer that a document ends with, or in words why it has none. */
function answerIn(document: Exclude<Document, { empty: string }>): PromptAndAnswer | string {
  if ("ids" in document) return "token ids have no answer that could be told from its prompt";
  if ("text" in document) {
    const { text, answerAt } = document;
    if (answerAt === undefined) return "a text has no answer";
    return { earlier: [], prompt: text.slice(0, answerAt), answer: text.slice(answerAt), chat: false };
  }
  const { messages } = document;
  const last = messages.findLastIndex(({ role }) => role === "assistant");
  if (last === -1) return "no turn is the assistant's";
  const answer = messages[last]?.content ?? "";
  const asked = messages[last - 1];
  if (asked?.role !== "user") return "its last answer does not follow a turn of the user's";
  if (answer.trim() === "") return "its last answer is empty";
  return { earlier: messages.slice(0, last - 1), prompt: asked.content, answer, chat: true };
}
