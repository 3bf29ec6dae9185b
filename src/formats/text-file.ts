/** Whole text files, with their errors in words. */
import { type ReadingDetails, readUserFile, readUserFileIfPresent } from "../base/user-files.ts";
import { decodeUtf8 } from "./lines.ts";

export interface TextDetails extends ReadingDetails {
  /** Bytes above which the file is refused. */
  limit?: number;
}

/** Bytes of a pattern, config, report or result file; the largest that are known have some MiB. */
export const LARGEST_DOCUMENT = 64 * 2 ** 20;

/**
 * The text of a UTF-8 file, without its byte order mark.
 * @param noun what the file is, for messages: `analysis file "a.json"`
 * @param details what to do where it cannot be read
 * @throws InputError for what is no regular file, too large, or not UTF-8
 */
export async function readText(path: string, noun: string, details: TextDetails = {}): Promise<string> {
  return decodeUtf8(await readUserFile(path, noun, { limit: LARGEST_DOCUMENT, ...details }), noun);
}

/** As `readText`; undefined where there is no such file. */
export async function readTextIfPresent(
  path: string,
  noun: string,
  details: TextDetails = {},
): Promise<string | undefined> {
  const bytes = await readUserFileIfPresent(path, noun, { limit: LARGEST_DOCUMENT, ...details });
  return bytes === undefined ? undefined : decodeUtf8(bytes, noun);
}
