/**
 * Cuts documents into windows of one length, the sequences of the calibration set. All windows are equally long: they
 * go through the model as one batch, and the standard error over sequences weighs them equally.
 */
import { Random } from "../base/random.ts";

export interface Windows {
  windows: Int32Array[];
  documents: number;
  /** Packed: tokens of the remainder after the last window. Not packed: tokens after the window of a long document. */
  droppedTokens: number;
  /** Documents shorter than a window; always 0 where packed. */
  droppedDocuments: number;
  /** Tokens of the longest document. */
  longestDocument: number;
}

/** Documents one after the other, cut every `length` tokens; the remainder is dropped. */
export async function packWindows(documents: AsyncIterable<ArrayLike<number>>, length: number): Promise<Windows> {
  const result = emptyWindows();
  let window = new Int32Array(length);
  let filled = 0;
  for await (const ids of documents) {
    countDocument(result, ids);
    for (let i = 0; i < ids.length; i++) {
      window[filled++] = ids[i] ?? 0;
      if (filled < length) continue;
      result.windows.push(window);
      window = new Int32Array(length);
      filled = 0;
    }
  }
  result.droppedTokens = filled;
  return result;
}

/** The first `length` tokens of each document; a document with fewer is dropped and counted. */
export async function windowPerDocument(documents: AsyncIterable<ArrayLike<number>>, length: number): Promise<Windows> {
  const result = emptyWindows();
  for await (const ids of documents) {
    countDocument(result, ids);
    if (ids.length < length) {
      result.droppedDocuments++;
    } else {
      result.windows.push(Int32Array.from({ length }, (_, i) => ids[i] ?? 0));
      result.droppedTokens += ids.length - length;
    }
  }
  return result;
}

/** A window for each document, none of them longer: the document whole, then as much of the next ones as there is room for. */
export function fillWindows(documents: readonly Int32Array[], length: number): Int32Array[] {
  return documents.map((_, place) => {
    const window = new Int32Array(length);
    for (let filled = 0, next = place; filled < length; next = (next + 1) % documents.length) {
      const ids = (documents[next] as Int32Array).subarray(0, length - filled);
      window.set(ids, filled);
      filled += ids.length;
    }
    return window;
  });
}

/** `count` of the windows, chosen by the seed, in their own order; all where there are no more. */
export function chooseWindows(windows: readonly Int32Array[], count: number, seed: number): Int32Array[] {
  return choosePlaces(windows.length, count, seed).flatMap((index) => windows[index] ?? []);
}

/** `count` of the places 0 to `available` - 1, chosen by the seed, ascending; all where there are no more. */
export function choosePlaces(available: number, count: number, seed: number): number[] {
  const all = Array.from({ length: available }, (_, place) => place);
  if (count >= available) return all;
  return Random.forPart(seed, "calibration windows")
    .sample(all, count)
    .sort((left, right) => left - right);
}

function emptyWindows(): Windows {
  return { windows: [], documents: 0, droppedTokens: 0, droppedDocuments: 0, longestDocument: 0 };
}

function countDocument(result: Windows, ids: ArrayLike<number>): void {
  result.documents++;
  result.longestDocument = Math.max(result.longestDocument, ids.length);
}
