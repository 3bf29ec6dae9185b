/** LongBench's scores of one output against one answer, 0 to 1 (`LongBench/metrics.py`, MIT), quirks included. */
import { pythonSplit } from "../python-whitespace.ts";
import { matchedByBlocks } from "../sequence-matcher.ts";
import type { CodeRatio } from "./options.ts";
import { rougeL } from "./rouge.ts";
import type { Segment } from "./segmentation.ts";

/** Python's `string.punctuation`. */
const ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const CJK_PUNCTUATION =
  "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";

const asciiPunctuation = new Set(ASCII_PUNCTUATION);
const allPunctuation = new Set(ASCII_PUNCTUATION + CJK_PUNCTUATION);

const without = (text: string, characters: ReadonlySet<string>): string =>
  [...text].filter((character) => !characters.has(character)).join("");

/** Whole words in Python's sense, where letters of all scripts are letters. */
const ARTICLES = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu;

function englishTokens(text: string): string[] {
  const bare = without(text.toLowerCase(), asciiPunctuation).replace(ARTICLES, " ");
  return pythonSplit(bare);
}

function chineseTokens(text: string, segment: Segment): string[] {
  return segment(text)
    .map((token) => pythonSplit(without(token.toLowerCase(), allPunctuation)).join(""))
    .filter((token) => token !== "");
}

/** F1 of two multisets. */
function f1(prediction: readonly string[], gold: readonly string[]): number {
  const left = new Map<string, number>();
  for (const token of gold) left.set(token, (left.get(token) ?? 0) + 1);
  let same = 0;
  for (const token of prediction) {
    const count = left.get(token) ?? 0;
    if (count === 0) continue;
    left.set(token, count - 1);
    same++;
  }
  if (same === 0) return 0;
  const precision = same / prediction.length;
  const recall = same / gold.length;
  return (2 * precision * recall) / (precision + recall);
}

export function qaF1(prediction: string, gold: string): number {
  return f1(englishTokens(prediction), englishTokens(gold));
}

export function qaF1Chinese(prediction: string, gold: string, segment: Segment): number {
  return f1(chineseTokens(prediction, segment), chineseTokens(gold, segment));
}

export function rougeChinese(prediction: string, gold: string, segment: Segment): number {
  return rougeL(segment(prediction).join(" "), segment(gold).join(" "));
}

/** The share of the numbers of an output that are the right one. */
export function countScore(prediction: string, gold: string): number {
  const numbers = prediction.match(/\p{Nd}+/gu) ?? [];
  return numbers.length === 0 ? 0 : numbers.filter((number) => number === gold).length / numbers.length;
}

/** As `countScore`, for the number in "Paragraph 7" or "段落7". */
export function retrievalScore(prediction: string, gold: string, paragraph: "Paragraph " | "段落"): number {
  const number = new RegExp(`${paragraph}(\\p{Nd}+)`, "u").exec(gold)?.[1];
  return number === undefined ? 0 : countScore(prediction, number);
}

/** Of the first line that holds no comment and no fence. */
export function codeSimilarity(prediction: string, gold: string, ratio: CodeRatio): number {
  const lines = prediction.replace(/^\n+/, "").split("\n");
  const line = lines.find((text) => !text.includes("`") && !text.includes("#") && !text.includes("//")) ?? "";
  return fuzzRatio(line, gold, ratio) / 100;
}

/**
 * 1 over the number of classes that the output names, if the right one is among them. Classes that are part of the right
 * one's name are taken out of the list while it is read, so that the class after each of them is not looked at.
 */
export function classificationScore(prediction: string, gold: string, classes: readonly string[]): number {
  const named = classes.filter((name) => prediction.includes(name));
  for (let i = 0; i < named.length; i++) {
    const name = named[i] ?? "";
    // The original removes the first element of that name, which need not be this one.
    if (gold.includes(name) && name !== gold) named.splice(named.indexOf(name), 1);
  }
  return named.includes(gold) ? 1 / named.length : 0;
}

/** What trec, triviaqa, samsum and lsht are scored on. */
export function firstLine(output: string): string {
  return output.replace(/^\n+/, "").split("\n")[0] ?? "";
}

/**
 * Similarity of two lines of code from 0 to 100, as `fuzz.ratio` of fuzzywuzzy gives it.
 * @param kind "difflib" is what LongBench's requirements install; "indel" what python-Levenshtein makes of it. The first
 *   depends on the order of its arguments
 */
export function fuzzRatio(prediction: string, gold: string, kind: CodeRatio): number {
  if (prediction === gold) return 100;
  const [a, b] = [[...prediction], [...gold]];
  if (a.length === 0 || b.length === 0) return 0;
  const matched = kind === "difflib" ? matchedByBlocks(a, b) : commonSubsequence(a, b);
  // In this order: fuzzywuzzy rounds 100 times the ratio, which is a rounded number already.
  return roundHalfEven(100 * ((2 * matched) / (a.length + b.length)));
}

/** Length of the longest common subsequence: what insertions and deletions alone leave in place. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let above = new Uint32Array(b.length + 1);
  for (const character of a) {
    const row = new Uint32Array(b.length + 1);
    for (const [j, other] of b.entries()) {
      row[j + 1] = character === other ? (above[j] ?? 0) + 1 : Math.max(above[j + 1] ?? 0, row[j] ?? 0);
    }
    above = row;
  }
  return above[b.length] ?? 0;
}

/** Python's round(). */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
