/** From records of data files to checked ones, with what is bad either fatal or counted. */
import type { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { quotedList } from "../../base/quoted.ts";
import { capitalized } from "../../base/words.ts";
import type { DataRecord } from "../../formats/records/record-files.ts";
import { describeIssues } from "../../formats/validation.ts";
import type { Suite } from "../item.ts";

/** A record whose fields are what they should be. */
export interface CheckedRecord<T> {
  where: string;
  /** As the file has it. */
  row: Readonly<Record<string, unknown>>;
  fields: T;
}

/** Collects bad records, or stops at the first. */
export class BadRecords {
  readonly list: Suite["bad"] = [];
  readonly #skips: boolean;

  constructor(skipBad: boolean) {
    this.#skips = skipBad;
  }

  /** Begins a reading: a second one does not count twice. */
  clear(): void {
    this.list.length = 0;
  }

  /**
   * Ends a reading that gave nothing.
   * @param what the data, for the message
   */
  refuseAll(what: string): never {
    const [first] = this.list;
    if (first === undefined) throw new InputError(`${capitalized(what)} holds no record`);
    throw new InputError(
      `${capitalized(what)} holds no record that can be used, ${this.list.length} are bad: ${first.where}: ${first.problem}`,
      { hint: "is it data of another suite?" },
    );
  }

  /** @throws InputError unless bad records are skipped */
  report(where: string, problem: string, cause?: unknown): void {
    if (!this.#skips) {
      const hint = "--skip-bad leaves such records out and counts them";
      throw new InputError(`${capitalized(where)}: ${problem}`, { hint, cause });
    }
    this.list.push({ where, problem });
  }
}

/**
 * @param required fields without which it is another kind of data: all that are missing are named
 */
export async function* checkRecords<T>(
  records: AsyncIterable<DataRecord>,
  schema: z.ZodType<T>,
  required: readonly (readonly string[])[],
  bad: BadRecords,
): AsyncGenerator<CheckedRecord<T>> {
  for await (const record of records) {
    const { where } = record;
    if ("problem" in record) {
      bad.report(where, record.problem);
      continue;
    }
    const missing = missingFields(record.value, required);
    if (missing !== undefined) {
      bad.report(where, missing);
      continue;
    }
    const result = schema.safeParse(record.value);
    if (result.success) yield { where, row: record.value as CheckedRecord<T>["row"], fields: result.data };
    else bad.report(where, describeIssues(result.error), result.error);
  }
}

function missingFields(value: unknown, required: readonly (readonly string[])[]): string | undefined {
  if (typeof value === "string") return "is text, and no record with fields";
  if (value === null || typeof value !== "object" || Array.isArray(value)) return "is no object with fields";
  const missing = required
    .filter((names) => !names.some((name) => Object.hasOwn(value, name)))
    .map(([name]) => `"${name}"`);
  if (missing.length === 0) return undefined;
  const present = Object.keys(value);
  if (present.length === 0) return `has no ${missing.join(", ")}; it has no fields`;
  return `has no ${missing.join(", ")}; its fields are ${quotedList(present)}`;
}
