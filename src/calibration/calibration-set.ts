/** The token windows that every pattern of a run is measured on, and the hash that says whether two runs had the same. */

import { createHash } from "node:crypto";
import { InputError, UsageError } from "../base/errors.ts";
import { counted } from "../base/quantities.ts";
import { type DocumentOptions, openDocuments } from "./documents.ts";
import { type DocumentEncoder, RowAccount, tokenizeDocuments } from "./tokenized-documents.ts";
import { chooseWindows, packWindows, type Windows, windowPerDocument } from "./windows.ts";

/** A sequence by default has at least this many tokens, where the model's window allows: fewer say little of a loss. */
const USUAL_LENGTH = 1024;

/** And this many times `index_topk`: three of four rows then see more keys than an indexer may select. */
const USUAL_MULTIPLE = 4;

/** A window predicts all its tokens but the first. */
const SHORTEST_WINDOW = 2;

/** What the set has to know of the model. */
export interface CalibrationModel {
  vocabSize: number;
  indexTopk: number;
  maxPositionEmbeddings: number;
}

export interface CalibrationOptions extends DocumentOptions, Omit<DocumentEncoder, "encode"> {
  sequenceLength?: number | undefined;
  /** Use only this many windows, chosen by `seed`. */
  sequences?: number | undefined;
  seed?: number;
  /** One window a document instead of documents one after the other. */
  pack?: boolean;
}

export interface CalibrationSet {
  source: string;
  /** SHA-256 over the token ids, window by window, and over the tokens that count, where not all do. */
  hash: string;
  windows: Int32Array[];
  /** For each window the position of its first token that counts: 1, or where its answer begins. */
  scoredFrom: number[];
  /** Of the longest window; those of text are all equally long. */
  sequenceLength: number;
  /** Ids in all windows. */
  tokens: number;
  /** Windows that the source gives; `windows` may be a choice of them. */
  available: number;
  documents: number;
  /** What the rows were read as, where it is not plain text or ids, and files beside the data. */
  notes: string[];
  /** Loud things: rows and files that are left out, dropped documents, fewer windows than asked for. */
  warnings: string[];
}

/**
 * Reads, tokenizes and cuts a calibration set.
 * @param encode ids of a text with its BOS; only called for documents that are text, so that a set of ids needs no
 *   tokenizer
 * @throws InputError for unreadable documents, ids outside the vocabulary, or a set that fills no window
 */
export async function loadCalibrationSet(
  source: string,
  model: CalibrationModel,
  encode: (text: string) => Promise<ArrayLike<number>>,
  options: CalibrationOptions = {},
): Promise<CalibrationSet> {
  const length = chooseLength(model, options);
  requireSequences(options.sequences);
  const opened = await openDocuments(source, options);
  const account = new RowAccount();
  const documents = tokenizeDocuments(opened.documents(), model.vocabSize, { ...options, encode }, account);
  const pack = options.pack ?? true;
  const cut = await (pack ? packWindows(documents, length) : windowPerDocument(documents, length));
  requireWindows(cut, source, length, model.indexTopk, pack, account);
  const windows = chooseWindows(cut.windows, options.sequences ?? cut.windows.length, options.seed ?? 0);
  const { notes, warnings } = account.describe(opened.leftOut);
  return {
    ...setOfWindows(source, windows, length),
    available: cut.windows.length,
    documents: cut.documents,
    notes,
    warnings: [...warnings, ...describeConcerns(cut, windows.length, length, options)],
  };
}

/** A set of windows of one length, in each of which every token but the first counts. */
export function setOfWindows(source: string, windows: Int32Array[], length: number): CalibrationSet {
  return {
    source,
    hash: hashWindows(windows),
    windows,
    scoredFrom: windows.map(() => 1),
    sequenceLength: length,
    tokens: windows.length * length,
    available: windows.length,
    documents: windows.length,
    notes: [],
    warnings: [],
  };
}

export function requireSequences(sequences: number | undefined): void {
  if (sequences === undefined || (Number.isInteger(sequences) && sequences >= 1)) return;
  throw new UsageError(`--sequences is ${sequences}: it must be a whole number from 1 up`);
}

/**
 * SHA-256 over length and ids of each window as little-endian 32-bit integers, followed by the first positions that count
 * unless all tokens do.
 */
export function hashWindows(windows: readonly Int32Array[], scoredFrom: readonly number[] = []): string {
  const hash = createHash("sha256");
  for (const window of windows) {
    const bytes = Buffer.alloc(4 * (window.length + 1));
    bytes.writeInt32LE(window.length, 0);
    for (const [index, id] of window.entries()) bytes.writeInt32LE(id, 4 * (index + 1));
    hash.update(bytes);
  }
  if (scoredFrom.some((from) => from > 1)) hash.update(Int32Array.from(scoredFrom));
  return hash.digest("hex");
}

/**
 * The default length: the multiple of `index_topk` that comes closest to 1,024 tokens from below, at least four of them,
 * and no more than the window holds. Up to `index_topk` tokens every indexer selects all there are.
 * @throws InputError for a model whose window shows no difference between patterns
 */
export function defaultSequenceLength({ indexTopk, maxPositionEmbeddings: window }: CalibrationModel): number {
  if (window <= indexTopk) {
    throw new InputError(
      `The model's window of ${window} tokens is not longer than index_topk (${indexTopk}): every indexer selects all tokens, so that all patterns give the same loss`,
      { hint: "max_position_embeddings and index_topk are in config.json" },
    );
  }
  const wanted = Math.max(USUAL_MULTIPLE, Math.floor(USUAL_LENGTH / indexTopk));
  const fitting = Math.floor(window / indexTopk);
  return fitting < 2 ? window : indexTopk * Math.min(wanted, fitting);
}

/** @throws UsageError for a length that the model has no room for, or that shows no difference between patterns */
export function chooseLength(model: CalibrationModel, { sequenceLength }: CalibrationOptions): number {
  const { indexTopk, maxPositionEmbeddings: limit } = model;
  if (sequenceLength === undefined) return defaultSequenceLength(model);
  if (!Number.isInteger(sequenceLength) || sequenceLength < SHORTEST_WINDOW) {
    throw new UsageError(
      `--sequence-length is ${sequenceLength}: it must be a whole number from ${SHORTEST_WINDOW} up`,
    );
  }
  if (sequenceLength > limit) {
    throw new UsageError(`--sequence-length is ${sequenceLength}, the model's window is ${limit} tokens`);
  }
  if (sequenceLength <= indexTopk) {
    throw new UsageError(
      `--sequence-length is ${sequenceLength}, not longer than index_topk (${indexTopk}): every indexer selects all tokens, so that all patterns give the same loss`,
      { hint: `take ${indexTopk + 1} or more; the default is ${defaultSequenceLength(model)}` },
    );
  }
  return sequenceLength;
}

function requireWindows(
  cut: Windows,
  source: string,
  length: number,
  indexTopk: number,
  pack: boolean,
  account: RowAccount,
): void {
  if (cut.documents === 0) {
    throw new InputError(`Calibration set "${source}" holds no text: ${account.describeEmpty() ?? "it is empty"}`);
  }
  if (cut.windows.length > 0) return;
  throw new InputError(
    pack
      ? `Calibration set "${source}" has ${cut.droppedTokens} tokens, too few for one window of ${length}`
      : `Calibration set "${source}" has no document of ${length} tokens, the longest has ${cut.longestDocument}`,
    { hint: `give more text, or a shorter --sequence-length; it must be above index_topk (${indexTopk})` },
  );
}

function describeConcerns(cut: Windows, used: number, length: number, { sequences }: CalibrationOptions): string[] {
  const concerns: string[] = [];
  if (cut.droppedDocuments > 0) {
    concerns.push(
      `${cut.droppedDocuments} of ${cut.documents} documents are shorter than ${length} tokens and are not used`,
    );
  }
  if (sequences !== undefined && used < sequences) {
    concerns.push(
      `The set gives ${counted(used, "sequence")} of ${length} tokens, fewer than the ${sequences} asked for`,
    );
  }
  return concerns;
}
