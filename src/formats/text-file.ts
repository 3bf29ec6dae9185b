/** Result files are read whole: they are small, and a person may have edited them. */
import { readFile } from "node:fs/promises";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";

/**
 * Text of a file that the user named.
 * @param noun what messages call it: `analysis file`
 * @throws InputError where it cannot be read
 */
export async function readTextFile(path: string, noun: string, hint: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new InputError(`Cannot read ${noun} "${path}": ${describeSystemError(code)}`, { hint, cause: error });
  }
}
