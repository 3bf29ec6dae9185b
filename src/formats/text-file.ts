/** Whole text files, with their errors in words. */
import { readFile } from "node:fs/promises";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { decodeUtf8 } from "./lines.ts";

/**
 * Runs an operation on a file.
 * @param noun what the file is, for messages: `essays "a.txt"`
 * @param options.verb what cannot be done with it, "read" by default
 * @param options.hint what to do then
 * @throws InputError where the system refuses
 */
export async function attemptRead<T>(
  noun: string,
  operation: () => Promise<T>,
  { verb = "read", hint }: { verb?: string; hint?: string | undefined } = {},
): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined || code.startsWith("E_")) throw error;
    throw new InputError(`Cannot ${verb} ${noun}: ${describeSystemError(code)}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    });
  }
}

/**
 * The text of a UTF-8 file, without its byte order mark.
 * @param noun what the file is, for messages: `analysis file "a.json"`
 * @param hint what to do where it cannot be read
 */
export async function readText(path: string, noun: string, hint?: string): Promise<string> {
  return decodeUtf8(await attemptRead(noun, () => readFile(path), { hint }), noun);
}
