/** Columns as the copies of a data set hold them. */
import { z } from "zod";

/** A list of strings, its JSON (as CSV has it), or one value alone. */
export const listOfStrings = z.preprocess(
  (value) => {
    if (typeof value === "string" && value.trimStart().startsWith("[")) {
      try {
        return JSON.parse(value);
      } catch {
        return [value];
      }
    }
    return typeof value === "string" || typeof value === "number" ? [value] : value;
  },
  z.array(z.union([z.string(), z.number().transform(String)])),
);
