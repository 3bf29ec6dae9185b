/** `indexcache search --status JOURNAL`: where a search stands, from its journal alone. */
import { InputError } from "../base/errors.ts";
import { readJournal } from "../formats/journal.ts";
import { formatStatus, statusRecord } from "../report/search-status.ts";
import type { Terminal } from "./terminal.ts";

export async function showStatus(path: string, json: boolean, terminal: Terminal): Promise<void> {
  const content = await readJournal(path);
  if (content === undefined) throw new InputError(`Journal "${path}" is empty`, { hint: "nothing was measured yet" });
  const record = statusRecord(content);
  terminal.result(json ? JSON.stringify(record, null, 2) : formatStatus(record));
}
