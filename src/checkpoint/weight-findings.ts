/**
 * What is found out about weight files by reading them whole, which takes minutes of a large model and is therefore done
 * once: their SHA-256, and that every weight that the model uses is finite. Few that are not show in results: top-k
 * swallows those of indexers and routers, and losses stay finite.
 */
import { join } from "node:path";
import { KnownFile } from "../base/hash-memory.ts";
import type { FileTask, WeightPiece } from "./weight-file.ts";
import { type ReadingSettings, readWeightFiles } from "./weight-readers.ts";
import { listWeights, type ModelWeights } from "./weights.ts";

export interface HashSettings extends ReadingSettings {
  /** Read the files in any case. */
  afresh?: boolean;
}

/**
 * Looks at every weight of the model; in large files that have not changed since, once.
 * @throws InputError naming file, tensor and element, where one is NaN or infinite
 * @throws InterruptedError after the signal
 */
export async function requireFiniteWeights(weights: ModelWeights, settings: ReadingSettings = {}): Promise<void> {
  await findOut(questionsOf(weights, weights.files, false), settings);
}

/**
 * SHA-256 of weight files as lower-case hex, and a look at the weights in them: one reading where neither is known.
 * @throws as `requireFiniteWeights`
 */
export async function hashFiniteFiles(
  weights: ModelWeights,
  files: readonly string[],
  settings: HashSettings = {},
): Promise<string[]> {
  return findOut(questionsOf(weights, files, true), settings);
}

/**
 * SHA-256 of files as lower-case hex, computed where it is not known already.
 * @param accept hears of each, in any order; what it throws counts as an error of that file
 * @throws the error of the first file, in their order, that has one
 */
export async function hashFiles(
  paths: readonly string[],
  settings: HashSettings = {},
  accept?: (index: number, sha256: string) => void,
): Promise<string[]> {
  return findOut(
    paths.map((path) => ({ path, hashes: true, pieces: [] })),
    settings,
    accept,
  );
}

type Question = Omit<FileTask, "bytes">;

function questionsOf(weights: ModelWeights, files: readonly string[], hashes: boolean): Question[] {
  const pieces = new Map<string, WeightPiece[]>(files.map((file) => [file, []]));
  for (const { file, name, dtype, shape, offset, length } of listWeights(weights)) {
    pieces.get(file)?.push({ name, dtype, shape, offset, length });
  }
  return [...pieces].map(([file, inFile]) => ({
    path: join(weights.folder, file),
    hashes,
    pieces: inFile.sort((a, b) => a.offset - b.offset),
  }));
}

/** Another config.json can make a model of other tensors of the same file. */
function checkOf(pieces: readonly WeightPiece[]): string {
  return `finite weights ${JSON.stringify(pieces.map(({ name, dtype, offset, length }) => [name, dtype, offset, length]))}`;
}

/** Answers what is known from memory, and the rest by reading; an answer is a file's SHA-256, where that was asked for. */
async function findOut(
  questions: readonly Question[],
  { afresh = false, ...settings }: HashSettings,
  accept?: (index: number, sha256: string) => void,
): Promise<string[]> {
  const known = await KnownFile.recall(questions.map(({ path }) => path));
  const answers: string[] = [];
  const answer = (index: number, sha256: string | undefined): void => {
    if (sha256 === undefined) return;
    answers[index] = sha256;
    accept?.(index, sha256);
  };
  const open: { index: number; file: KnownFile; check: string | undefined; task: FileTask }[] = [];
  let refused: { error: unknown } | undefined;
  for (const [index, { path, hashes, pieces }] of questions.entries()) {
    const file = known[index] as KnownFile;
    const check = pieces.length > 0 ? checkOf(pieces) : undefined;
    const isHashed = !hashes || (!afresh && file.sha256 !== undefined);
    const isChecked = check === undefined || (!afresh && file.hasPassed(check));
    if (!isHashed || !isChecked) {
      const left = isChecked ? [] : pieces;
      const bytes = isHashed ? left.reduce((sum, { length }) => sum + length, 0) : file.bytes;
      const task = { path, hashes: !isHashed, pieces: left, bytes };
      open.push({ index, file, check: isChecked ? undefined : check, task });
    }
    if (!hashes || !isHashed) continue;
    try {
      answer(index, file.sha256);
    } catch (error) {
      // Files before it may have an error, too.
      refused = { error };
      break;
    }
  }
  await readWeightFiles(
    open.map(({ task }) => task),
    settings,
    async (place, sha256) => {
      const { index, file, check } = open[place] as (typeof open)[number];
      await file.remember({ sha256, passed: check });
      answer(index, sha256);
    },
  );
  if (refused !== undefined) throw refused.error;
  return answers;
}
