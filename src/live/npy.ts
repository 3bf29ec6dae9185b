/** Reads NumPy's file format for a matrix of float32, which vLLM sends as base64. */
import { RuntimeFailure } from "../base/errors.ts";

/** @returns `[rows, columns]`, row by row */
export function decodeNpy(base64: string, rows: number, columns: number): Float32Array {
  const bytes = Buffer.from(base64, "base64");
  const version = bytes[6];
  const before = version === 1 ? 10 : 12;
  if (bytes.toString("latin1", 0, 6) !== "\x93NUMPY" || bytes.length < before) {
    throw new RuntimeFailure("prompt_token_id_logprobs is no .npy file");
  }
  const length = version === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const header = bytes.toString("latin1", before, before + length);
  const shape = /'shape':\s*\((\d+),\s*(\d+)\)/.exec(header);
  if (!header.includes("'<f4'") || header.includes("'fortran_order': True") || shape === null) {
    throw new RuntimeFailure("prompt_token_id_logprobs is no matrix of float32 in rows");
  }
  const data = bytes.subarray(before + length);
  if (Number(shape[1]) !== rows || Number(shape[2]) !== columns || data.length !== 4 * rows * columns) {
    throw new RuntimeFailure(
      `prompt_token_id_logprobs has ${shape[1]} rows of ${shape[2]}, ${rows} of ${columns} were asked for`,
    );
  }
  return Float32Array.from({ length: rows * columns }, (_, index) => data.readFloatLE(4 * index));
}
