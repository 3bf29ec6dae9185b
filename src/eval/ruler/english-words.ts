/** RULER's english_words.json, which cwe draws from where its own pool ends; 8.6 MB that are not shipped. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";

export interface EnglishWords {
  /** SHA-256 of the file. */
  hash: string;
  /** Each once. */
  words: readonly string[];
}

const schema = z.union([
  z.record(z.string(), z.string()).transform((record) => Object.values(record)),
  z.array(z.string()),
]);

/** @throws InputError for a file that is not RULER's, nor a list of words as JSON */
export async function readEnglishWords(path: string): Promise<EnglishWords> {
  const what = `English words "${path}"`;
  const text = await readText(path, what);
  const words = [
    ...new Set(parseJson(text, schema, what, "it is RULER's english_words.json, or a JSON array of words")),
  ];
  if (words.length === 0) throw new InputError(`${what} hold no word`);
  return { hash: hashBytes(text), words };
}
