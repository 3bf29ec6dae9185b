/** From documents to token ids, with an account of what the rows were and which of them held nothing. */
import { InputError } from "../base/errors.ts";
import { capitalized } from "../base/words.ts";
import { describeLeftOut, type LeftOut, NO_DATA } from "../formats/records/data-folder.ts";
import type { Document } from "./documents.ts";
import type { Turn } from "./row-content.ts";

export interface DocumentEncoder {
  /** Ids of a text with its BOS. */
  encode(text: string): Promise<ArrayLike<number>>;
  /** The same of many texts, faster. */
  encodeAll?: ((texts: readonly string[]) => Promise<ArrayLike<number>[]>) | undefined;
  /**
   * Ids of a conversation after the model's chat template; undefined for a model without one, whose turns are joined.
   * @throws InputError for a conversation that the template refuses
   */
  encodeChat?: ((messages: readonly Turn[]) => Promise<ArrayLike<number> | undefined>) | undefined;
  /** Called after every document: how many rows there were, and the tokens of all. */
  onDocument?: ((rows: number, tokens: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Left-out rows that are named; all are counted. */
const NAMED_ROWS = 3;

/** Shapes that are what a calibration set is thought to hold, and are no news. */
const plainShapes = ['"text"', '"input_ids"', "texts", "lists", "a list of ids"];

/** Counts what the rows were read as, and which were left out. */
export class RowAccount {
  rows = 0;
  tokens = 0;
  readonly #shapes = new Map<string, number>();
  readonly #empty: string[] = [];
  #emptyRows = 0;

  read(shape: string): void {
    this.#shapes.set(shape, (this.#shapes.get(shape) ?? 0) + 1);
  }

  leaveOut(where: string, reason: string): void {
    this.#emptyRows++;
    if (this.#empty.length < NAMED_ROWS) this.#empty.push(`${where.replace(/^calibration /, "")} (${reason})`);
  }

  /**
   * What the rows were read as, and loudly what was left out.
   * @param leftOut files beside those that were read: a README is nothing to warn of
   */
  describe(leftOut: readonly LeftOut[]): { notes: string[]; warnings: string[] } {
    const isAside = ({ reason }: LeftOut): boolean => reason === NO_DATA;
    const asides = describeLeftOut(leftOut.filter(isAside));
    const files = describeLeftOut(leftOut.filter((file) => !isAside(file)));
    const sentences = (...all: (string | undefined)[]): string[] => all.filter((sentence) => sentence !== undefined);
    return { notes: sentences(this.#shapesRead(), asides), warnings: sentences(this.describeEmpty(), files) };
  }

  /** What rows other than plain text and ids were read as; undefined where there are none. */
  #shapesRead(): string | undefined {
    const shapes = [...this.#shapes];
    if (shapes.every(([shape]) => plainShapes.includes(shape))) return undefined;
    const parts = shapes.map(([shape, rows]) => (shapes.length === 1 ? shape : `${rows} as ${shape}`));
    return `calibration rows were read as ${parts.join("; ")}`;
  }

  /** The rows that held nothing; undefined where there are none. */
  describeEmpty(): string | undefined {
    if (this.#emptyRows === 0) return undefined;
    const more = this.#emptyRows - this.#empty.length;
    const named = `${this.#empty.join(", ")}${more === 0 ? "" : `, and ${more} more`}`;
    const count =
      this.#emptyRows === 1
        ? `1 of ${this.rows} calibration rows is`
        : `${this.#emptyRows} of ${this.rows} calibration rows are`;
    return `${count} left out: ${named}`;
  }
}

/**
 * Ids of each document; those of a text begin with BOS, given ids are used as they are.
 * @throws InputError for ids outside the vocabulary
 */
export async function* tokenizeDocuments(
  documents: AsyncIterable<Document>,
  vocabSize: number,
  encoder: DocumentEncoder,
  account: RowAccount,
): AsyncGenerator<ArrayLike<number>> {
  for await (const block of blocksOf(documents)) {
    encoder.signal?.throwIfAborted();
    const texts = block.flatMap((document) => ("text" in document ? [document.text] : []));
    const encoded = texts.length > 1 ? await encoder.encodeAll?.(texts) : undefined;
    const known = encoded?.values();
    for (const document of block) {
      account.rows++;
      if ("empty" in document) {
        account.leaveOut(document.where, document.empty);
        continue;
      }
      const ids = await idsOf(document, encoder, account, "text" in document ? known?.next().value : undefined);
      if (ids === undefined) continue;
      requireInVocabulary(ids, vocabSize, document);
      account.tokens += ids.length;
      encoder.onDocument?.(account.rows, account.tokens);
      yield ids;
    }
  }
}

/** Characters of text that are tokenized together: a second's work of one thread. */
const blockCharacters = 2 ** 20;

async function* blocksOf(documents: AsyncIterable<Document>): AsyncGenerator<Document[]> {
  let block: Document[] = [];
  let characters = 0;
  for await (const document of documents) {
    block.push(document);
    characters += "text" in document ? document.text.length : blockCharacters;
    if (characters < blockCharacters) continue;
    yield block;
    block = [];
    characters = 0;
  }
  yield block;
}

/** @throws InputError for ids outside the vocabulary */
export function requireInVocabulary(ids: ArrayLike<number>, vocabSize: number, document: Document): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] ?? -1;
    if (id >= 0 && id < vocabSize) continue;
    const given = "ids" in document;
    throw new InputError(
      `${capitalized(document.where)}: token id ${id} at position ${i} is outside the model's vocabulary of ${vocabSize}`,
      { hint: given ? "were the ids made with this model's tokenizer?" : "the tokenizer files are not this model's" },
    );
  }
}

/** @returns undefined for a conversation that the chat template refuses: it is counted */
async function idsOf(
  document: Exclude<Document, { empty: string }>,
  { encode, encodeChat }: DocumentEncoder,
  account: RowAccount,
  known: ArrayLike<number> | undefined,
): Promise<ArrayLike<number> | undefined> {
  if (!("messages" in document)) {
    account.read(document.from);
    return "ids" in document ? document.ids : (known ?? encode(document.text));
  }
  let ids: ArrayLike<number> | undefined;
  try {
    ids = await encodeChat?.(document.messages);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    account.leaveOut(document.where, error.message);
    return undefined;
  }
  if (ids !== undefined) {
    account.read(`${document.from} through the model's chat template`);
    return ids;
  }
  account.read(`${document.from}, turns joined by blank lines: the model has no chat template`);
  return encode(document.messages.map(({ content }) => content).join("\n\n"));
}
