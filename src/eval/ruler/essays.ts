/** The haystack of RULER's essay tasks: the user's text, because Paul Graham's essays may not be shipped. */
import { basename } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { capitalized } from "../../base/words.ts";
import { openDataSet } from "../../formats/records/record-files.ts";
import { checkShape } from "../../formats/validation.ts";
import { pythonSplit } from "../python-whitespace.ts";

export interface Essays {
  /** SHA-256 of the text after its blanks are collapsed. */
  hash: string;
  /** False for other text than PaulGrahamEssays.json: such results are not those of published RULER. */
  published: boolean;
  /**
   * The first `words` words, over again where they end, with the sentences put between theirs.
   * @param depths percent of the sentences before each of `needles`; they are taken in ascending order
   */
  hide(needles: readonly string[], depths: readonly number[], words: number): string;
}

const essaySchema = z.looseObject({ text: z.string() });

/**
 * @param path PaulGrahamEssays.json or another file of records with a "text" (JSON, JSONL, Parquet), a text file, or a
 *   folder of .txt files
 * @throws InputError for a path that cannot be read or holds no text
 */
export async function readEssays(path: string): Promise<Essays> {
  const words = pythonSplit(await readSource(path));
  if (words.length === 0) throw new InputError(`Essays "${path}" hold no text`);
  const ends = words.map((word) => /[.!?]["'”’)\]]*$/u.test(word));
  return {
    hash: hashBytes(words.join(" ")),
    published: basename(path) === "PaulGrahamEssays.json",
    hide: (needles, depths, count) => hide(words, ends, needles, depths, count),
  };
}

function hide(
  words: readonly string[],
  ends: readonly boolean[],
  needles: readonly string[],
  depths: readonly number[],
  count: number,
): string {
  const text = Array.from({ length: count }, (_, i) => words[i % words.length] ?? "");
  // Where each sentence ends, as a number of words; what is left over at the end is a sentence too.
  const sentences: number[] = [];
  for (let i = 0; i < count; i++) if (ends[i % words.length] || i === count - 1) sentences.push(i + 1);
  const pieces: string[] = [];
  let from = 0;
  const ascending = [...depths].sort((a, b) => a - b);
  for (const [i, needle] of needles.entries()) {
    const before = Math.floor((sentences.length * (ascending[i] ?? 0)) / 100);
    const to = before === 0 ? 0 : (sentences[before - 1] ?? count);
    // Empty pieces too: a needle before all sentences or after them has its blank, as RULER's own has.
    pieces.push(text.slice(from, to).join(" "), needle);
    from = Math.max(from, to);
  }
  pieces.push(text.slice(from).join(" "));
  return pieces.join(" ");
}

async function readSource(path: string): Promise<string> {
  const texts: string[] = [];
  for (const file of (await openDataSet(path, { takesText: true })).files) {
    for await (const record of file.records()) {
      if ("problem" in record) throw new InputError(`${capitalized(record.where)}: ${record.problem}`);
      texts.push(
        typeof record.value === "string"
          ? record.value
          : checkShape(record.value, essaySchema, capitalized(record.where), 'essays are records with a "text"').text,
      );
    }
  }
  return texts.join("\n");
}
