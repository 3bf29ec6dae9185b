/** Numbers of a file that are believed within bounds only. */
import { z } from "zod";

/** A whole number from 1 to `largest`. */
export function sizeUpTo(largest: number) {
  const words = `must be a whole number from 1 to ${largest.toLocaleString("en-US")}`;
  return z.number().refine((value) => Number.isInteger(value) && value >= 1 && value <= largest, words);
}

/** A positive number that float32, in which it is computed with, can hold. */
export const float32 = z
  .number()
  .refine(
    (value) => Math.fround(value) > 0 && Number.isFinite(Math.fround(value)),
    "must be positive and within the range of float32",
  );
