/** Turns what zod finds in a file into one sentence for a person: file, field, what was expected. */
import type { z } from "zod";
import { InputError } from "../base/errors.ts";

/**
 * Checks a parsed value against a schema.
 * @param what the noun of the message: `Pattern file "p.json"`
 * @throws InputError that names the first field that is wrong
 */
export function checkShape<T>(value: unknown, schema: z.ZodType<T>, what: string, hint?: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new InputError(`${what}: ${describeIssues(result.error)}`, { hint, cause: result.error });
}

/** Levels of arrays and objects in one another; no file of ours, and none that is read, has a tenth of them. */
export const MOST_LEVELS = 200;

/** What to say of a value beyond them. */
export const TOO_DEEP = `nests arrays and objects more than ${MOST_LEVELS} levels deep`;

/**
 * Is a value nested more deeply than so many levels? JSON.parse takes any depth; whatever walks through the value
 * afterwards, JSON.stringify for one, would end in an overflow of the stack.
 */
export function nestsDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (levels === 0) return true;
  const inner: unknown[] = Array.isArray(value) ? value : Object.values(value);
  return inner.some((one) => nestsDeeperThan(one, levels - 1));
}

/** Parses JSON text and checks it. */
export function parseJson<T>(text: string, schema: z.ZodType<T>, what: string, hint?: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${what} is not JSON: ${error instanceof Error ? error.message : String(error)}`, {
      hint,
      cause: error,
    });
  }
  if (nestsDeeperThan(value, MOST_LEVELS)) {
    throw new InputError(`${what} ${TOO_DEEP}`, { hint });
  }
  return checkShape(value, schema, what, hint);
}

/** The first thing that is wrong, with its field, and how many more there are. */
export function describeIssues(error: z.ZodError): string {
  const [first, ...others] = error.issues;
  if (first === undefined) return "does not have the expected form";
  const rest = others.length === 0 ? "" : ` (and ${others.length} more)`;
  return `${describePath(first.path)}${first.message}${rest}`;
}

function describePath(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "";
  const text = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
  return `"${text.replace(/^\./, "")}": `;
}
