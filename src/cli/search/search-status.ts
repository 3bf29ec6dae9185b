/** `indexcache search --status JOURNAL`: where a search stands, from its journal alone. */

import { InputError } from "../../base/errors.ts";
import { isThere } from "../../base/user-files.ts";
import { readJournal } from "../../formats/journal.ts";
import { formatStatus, statusRecord } from "../../report/search/search-status.ts";
import type { Terminal } from "../console/terminal.ts";

/** @param given the journal, or the `-o` file that it stands beside */
export async function showStatus(given: string, terminal: Terminal): Promise<void> {
  const path = await journalOf(given);
  const content = await readJournal(path);
  if (content === undefined) throw new InputError(`Journal "${path}" is empty`, { hint: "nothing was measured yet" });
  const record = statusRecord(content);
  terminal.answer(record, () => formatStatus(record));
}

async function journalOf(path: string): Promise<string> {
  const beside = `${path}.journal.jsonl`;
  return (await isThere(beside)) ? beside : path;
}
