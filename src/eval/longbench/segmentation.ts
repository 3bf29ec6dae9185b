/**
 * Chinese text to words, as Python's jieba 0.42.1 cuts it. The dictionary weighs 10 MB, so the package is an optional
 * dependency. It cuts Chinese as Python does; signs and Latin words in between are cut here, because there it does not.
 */
import { pythonSpace } from "../python-whitespace.ts";

/** Precise mode with the model for unknown words, as `jieba.cut(text)`. */
export type Segment = (text: string) => string[];

let loading: Promise<Segment | undefined> | undefined;

/** @returns undefined where @node-rs/jieba is not installed or does not run on this machine */
export function loadSegmentation(): Promise<Segment | undefined> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Segment | undefined> {
  try {
    const { Jieba } = await import("@node-rs/jieba");
    const { dict } = await import("@node-rs/jieba/dict.js");
    const jieba = Jieba.withDict(dict);
    return (text) => cutAsPython(text, (block) => jieba.cut(block, true));
  } catch {
    return undefined;
  }
}

/** What Python's jieba looks up in its dictionary; any other character is a word of its own. */
const BLOCK = /[\u4e00-\u9fd5a-zA-Z0-9+#&._%-]+/gu;
/** A line end of two characters stays whole; the rest of what parts blocks goes character by character. */
const SINGLE = new RegExp(`\\r\\n|[${pythonSpace}]|[^]`, "gu");

function cutAsPython(text: string, cutBlock: Segment): string[] {
  const words: string[] = [];
  let from = 0;
  for (const { 0: block, index } of text.matchAll(BLOCK)) {
    words.push(...singles(text.slice(from, index)), ...recutLatin(cutBlock(block)));
    from = index + block.length;
  }
  words.push(...singles(text.slice(from)));
  return words;
}

function singles(text: string): string[] {
  return text.match(SINGLE) ?? [];
}

/** The words of jieba's dictionary without a Chinese character. */
const LATIN_ENTRIES = new Set(["AT&T", "C#", "C++", "c#", "c++"]);
const LATIN = /^[a-zA-Z0-9+#&._%-]+$/;
/** A word or number; what stands between two of them stays together. */
const LATIN_WORD = /[a-zA-Z0-9]+(?:\.\d+)?%?/g;

/**
 * Cuts runs of Latin letters, digits and signs anew: the package takes any character for the decimal point ("GPT-4" is one
 * word then), Python only the point.
 */
function recutLatin(words: readonly string[]): string[] {
  const recut: string[] = [];
  let run = "";
  const end = (): void => {
    // A character alone is a word whatever it is.
    recut.push(...(run.length === 1 ? [run] : latinWords(run)));
    run = "";
  };
  for (const word of words) {
    if (LATIN.test(word) && !LATIN_ENTRIES.has(word)) {
      run += word;
      continue;
    }
    end();
    recut.push(word);
  }
  end();
  return recut;
}

function latinWords(run: string): string[] {
  const words: string[] = [];
  let from = 0;
  for (const { 0: word, index } of run.matchAll(LATIN_WORD)) {
    if (index > from) words.push(run.slice(from, index));
    words.push(word);
    from = index + word.length;
  }
  if (from < run.length) words.push(run.slice(from));
  return words;
}
