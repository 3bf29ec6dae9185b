/** What tests of suites look at: all items, and the words of a refusal. */
import { InputError, UsageError } from "../../src/base/errors.ts";
import type { EvalItem, Suite } from "../../src/eval/item.ts";

export async function collect(suite: Suite): Promise<EvalItem[]> {
  const items: EvalItem[] = [];
  for await (const item of suite.items()) items.push(item);
  return items;
}

/** Message and hint of a known error; anything else is thrown on, and so is the want of one. */
export async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  if (error instanceof InputError || error instanceof UsageError) return `${error.message} | ${error.hint ?? ""}`;
  throw error instanceof Error ? error : new Error("nothing was thrown");
}
