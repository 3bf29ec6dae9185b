/** `indexcache search merge`: journals of one search that ran on several machines become one, to be resumed. */
import type { Command } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import {
  type JournalContent,
  type JournalEntry,
  openJournal,
  readJournal,
  requireAgreement,
  requireSameRun,
} from "../../formats/journal.ts";
import { formatCount } from "../../report/quantities.ts";
import { type Flags, option, required } from "../arguments/declared-option.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";

const options = [
  required("-o, --output <file>", "write the joined journal here, exactly"),
  option("--fresh", "overwrite a file that exists"),
  option("-q, --quiet", "say nothing on stderr but errors"),
] as const;

const help = `
What several journals measured is written once, that of the first. Copy FILE to where the search's pattern file is to be,
with .journal.jsonl after its name, and continue with --resume.

Example:
  $ indexcache search merge one.journal.jsonl two.journal.jsonl -o quarter.json.journal.jsonl`;

export function addMergeCommand(search: Command): void {
  const command = search
    .command("merge")
    .description("join journals of the same search")
    .argument("<journals...>", "journals of the same model, text, strategy, objective and version");
  addWork(command, { options, help }, merge);
}

async function merge(paths: readonly string[], flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  if (paths.length < 2) throw new UsageError("merge needs at least two journals");
  const contents: JournalContent[] = [];
  for (const path of paths) {
    const content = await readJournal(path);
    if (content === undefined) throw new InputError(`Journal "${path}" is empty`);
    const [first] = contents;
    if (first !== undefined) requireSameRun(path, content.fingerprint, first.fingerprint);
    contents.push(content);
  }
  const [first] = contents;
  if (first === undefined) return;
  const named = contents.map(({ entries }, at) => ({ path: paths[at] ?? "", entries }));
  const { dtype, engine } = first.fingerprint.settings;
  requireAgreement(named, engine === undefined ? String(dtype) : "server");
  const journal = await openJournal(flags.output, first.fingerprint, flags.fresh === true ? "fresh" : "create");
  let written = 0;
  let twice = 0;
  try {
    const seen = new Set<string>();
    for (const entry of contents.flatMap(({ entries }) => entries)) {
      const rest = withoutKnown(entry, seen);
      twice += entry.sequences.length - (rest?.sequences.length ?? 0);
      if (rest === undefined) continue;
      await journal.append(rest);
      written += rest.sequences.length;
    }
  } finally {
    await journal.close();
  }
  terminal.note(`${formatCount(written)} sequence evaluations, ${formatCount(twice)} were in several journals`);
  terminal.note(`written: ${flags.output}`);
}

/** What of an entry no entry before it has said. */
function withoutKnown(entry: JournalEntry, seen: Set<string>): JournalEntry | undefined {
  const sequences = entry.sequences.filter(({ index, kl }) => {
    const key = `${entry.pattern}/${index}/${kl === undefined ? "" : "kl"}/${entry.repeat ?? 0}`;
    return !seen.has(key) && seen.add(key) !== undefined;
  });
  return sequences.length === 0 ? undefined : { ...entry, sequences };
}
