/** What a report is made of: the files that search, analyze, bench and eval write, each known by what is in it. */
import { access } from "node:fs/promises";
import { basename, extname } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { type AnalysisFile, readAnalysisFile } from "../../formats/analysis-file.ts";
import { type BenchFile, readBenchFile } from "../../formats/bench-file.ts";
import { type EvalResult, readEvalResult } from "../../formats/eval-result.ts";
import { type JournalEntry, readJournal } from "../../formats/journal.ts";
import { type LatencyFile, readLatencyFile } from "../../formats/latency-file.ts";
import { type CheckedPatternFile, parsePatternFile } from "../../formats/pattern-file.ts";
import { WEIGHTS_NOT_READ } from "../../formats/pattern-schema.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";

/** A file that was read. */
export interface Source {
  path: string;
  /** File name without its extension; what charts and tables call it. */
  name: string;
  sha256: string;
}

export interface SearchEvidence extends Source {
  file: CheckedPatternFile;
  /** Everything that was measured; undefined without a journal beside the file. */
  journal: readonly JournalEntry[] | undefined;
}
export type AnalysisEvidence = Source & { file: AnalysisFile };
export type BenchEvidence = Source & { file: BenchFile };
type LatencyEvidence = Source & { file: LatencyFile };
export type EvalEvidence = Source & { file: EvalResult };

export interface Evidence {
  searches: SearchEvidence[];
  analyses: AnalysisEvidence[];
  benches: BenchEvidence[];
  evaluations: EvalEvidence[];
  /** Costs of layers, for what the verdict foretells. */
  latencies: LatencyEvidence[];
}

const kindSchema = z.looseObject({ kind: z.string().optional() });

const expected =
  "a report takes pattern files of search -o, and the files of analyze -o, bench -o, bench --latency and eval -o; journals are found beside pattern files";

/**
 * Reads every file and finds out by its content what it is. A file that is named twice, or a copy of another one, counts once.
 * @throws InputError for a file of another kind, or files of different models
 */
export async function readEvidence(paths: readonly string[]): Promise<Evidence> {
  const evidence: Evidence = { searches: [], analyses: [], benches: [], evaluations: [], latencies: [] };
  const read = new Set<string>();
  for (const path of paths) await addFile(evidence, path, read);
  requireOneModel(evidence);
  requireDistinctNames(evidence);
  return evidence;
}

async function addFile(evidence: Evidence, path: string, read: Set<string>): Promise<void> {
  const content = await readText(path, `file "${path}"`, { hint: expected });
  const source: Source = { path, name: basename(path, extname(path)), sha256: hashBytes(content) };
  if (read.has(source.sha256)) return;
  read.add(source.sha256);
  if (/^\{"kind":"indexcache-[a-z-]+","format":/.test(content)) {
    throw new InputError(`"${path}" is a journal`, {
      hint: "give the file that it belongs to; the journal is found beside it",
    });
  }
  const value = parseJson(content, kindSchema, `"${path}"`, expected);
  if (value.kind === "indexcache-analysis") evidence.analyses.push({ ...source, file: await readAnalysisFile(path) });
  else if (value.kind === "indexcache-bench") evidence.benches.push({ ...source, file: await readBenchFile(path) });
  else if (value.kind === "indexcache-latency") {
    evidence.latencies.push({ ...source, file: await readLatencyFile(path) });
  } else if ("suite" in value) evidence.evaluations.push({ ...source, file: await readEvalResult(path) });
  else if ("published" in value) {
    throw new InputError(`"${path}" is a published pattern: nothing was measured for it here`, { hint: expected });
  } else if ("trajectory" in value) evidence.searches.push(await searchEvidence(source, content));
  else throw new InputError(`"${path}" is no file that a report is made of`, { hint: expected });
}

async function searchEvidence(source: Source, content: string): Promise<SearchEvidence> {
  const file = parsePatternFile(content, source.path);
  const path = `${source.path}.journal.jsonl`;
  const found = await access(path).then(
    () => true,
    () => false,
  );
  const journal = found ? await readJournal(path) : undefined;
  if (journal === undefined) return { ...source, file, journal: undefined };
  const { fingerprint, entries } = journal;
  const foreign =
    fingerprint.weight_hash !== (file.model.weight_hash ?? WEIGHTS_NOT_READ) ||
    fingerprint.model_config_hash !== file.model.config_hash ||
    fingerprint.calibration_hash !== file.calibration.hash;
  if (foreign) {
    throw new InputError(`Journal "${path}" is of another model or calibration set than its pattern file`, {
      hint: "search again, or move the journal away",
    });
  }
  return { ...source, file, journal: entries };
}

/** Losses and scores of different weights in one report would be compared by its readers. Timings may be of other shapes. */
function requireOneModel({ searches, analyses, evaluations }: Evidence): void {
  const [first, ...others] = [...searches, ...analyses, ...evaluations];
  if (first === undefined) return;
  const foreign = others.find(
    ({ file }) =>
      file.model.weight_hash !== first.file.model.weight_hash ||
      file.model.config_hash !== first.file.model.config_hash,
  );
  if (foreign === undefined) return;
  throw new InputError(
    `"${foreign.path}" is of model "${foreign.file.model.name}", "${first.path}" of "${first.file.model.name}": their hashes differ`,
    { hint: "a report is about one model; make one for each" },
  );
}

function requireDistinctNames({ searches, benches, analyses, evaluations, latencies }: Evidence): void {
  for (const group of [searches, benches, analyses, evaluations, latencies]) {
    const names = group.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) {
      throw new InputError(`Two files are called "${twice}": charts could not tell them apart`, { hint: "rename one" });
    }
  }
}
