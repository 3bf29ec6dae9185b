/** Which files of a folder or zip are data, which are left out and why, and which split of a data set they are. */
import { type Dirent, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted, quotedList } from "../../base/quoted.ts";
import { attemptRead, readUserFileIfPresent } from "../../base/user-files.ts";
import { kindByName, NO_DATA, SUPPORTED } from "./data-format.ts";

export { NO_DATA };

/** A file that is there and not read: never without a word. */
export interface LeftOut {
  name: string;
  reason: string;
}

export interface FileChoice {
  /** Only files of this split, by their names: `train`, `test`, `validation`. */
  split?: string | undefined;
  /** Do plain text files count as data? */
  takesText: boolean;
}

const DEEPEST_FOLDER = 5;
/** Data files of a folder or zip. More are some mistake, and each costs an opening. */
export const MOST_FILES = 20_000;

/**
 * Every file of a folder, hidden ones aside, by code unit, so that the order does not depend on the machine's locale.
 * @throws InputError for more than `MOST_FILES`
 */
export async function listFolder(folder: string): Promise<{ name: string; path: string }[]> {
  const found: { name: string; path: string }[] = [];
  await walk(await snapshotOf(folder), "", DEEPEST_FOLDER, found);
  return found;
}

async function walk(
  folder: string,
  prefix: string,
  depth: number,
  found: { name: string; path: string }[],
): Promise<void> {
  const entries = await attemptRead(`folder "${folder}"`, () => readdir(folder, { withFileTypes: true }));
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith(".")) continue;
    const path = join(folder, entry.name);
    const name = prefix + entry.name;
    if (await isFolder(entry, path)) {
      if (depth === 0) throw new InputError(`Folder "${folder}" is too deep: "${name}" is not looked into`);
      await walk(path, `${name}/`, depth - 1, found);
    } else {
      found.push({ name, path });
      if (found.length <= MOST_FILES) continue;
      throw new InputError(`Folder "${folder}" holds more than ${MOST_FILES} files`, {
        hint: "join them, as JSONL for one, or name a folder of fewer",
      });
    }
  }
}

async function isFolder(entry: Dirent, path: string): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

/** A data set's place in the cache of Hugging Face leads on to its snapshot; any other folder is itself. */
async function snapshotOf(folder: string): Promise<string> {
  const snapshots = join(folder, "snapshots");
  if (!existsSync(snapshots) || !existsSync(join(folder, "blobs"))) return folder;
  const names = (await attemptRead(`folder "${snapshots}"`, () => readdir(snapshots))).sort();
  const main = (await readUserFileIfPresent(join(folder, "refs", "main"), `"${folder}/refs/main"`, { limit: 1000 }))
    ?.toString()
    .trim();
  const chosen = names.length === 1 ? names[0] : names.find((name) => name === main);
  if (chosen !== undefined) return join(snapshots, chosen);
  throw new InputError(`Folder "${folder}" has ${names.length} snapshots, and refs/main names none of them`, {
    hint: "give the folder of one: its snapshots/REVISION",
  });
}

/**
 * Chooses the data among files.
 * @param where the folder or zip, for messages
 * @throws InputError where no data is left, or the files are of several splits and none was chosen
 */
export function chooseFiles<T extends { name: string }>(
  files: readonly T[],
  where: string,
  { split, takesText }: FileChoice,
): { chosen: T[]; leftOut: LeftOut[] } {
  const leftOut: LeftOut[] = [];
  const data = files.filter((file) => {
    const kind = kindByName(file.name);
    if (kind === "records" || (kind === "text" && takesText)) return true;
    leftOut.push({ name: file.name, reason: kind === "text" ? "text, not records" : kind.leftOut });
    return false;
  });
  if (data.length === 0) throw withoutData(files, leftOut, where);
  const splits = new Map<string, T[]>();
  /** Of the files of one place: splits of different data sets are no mixture. */
  const places = new Map<string, Set<string>>();
  for (const file of data) {
    const found = splitOf(file.name);
    if (found === undefined) continue;
    splits.set(found.split, [...(splits.get(found.split) ?? []), file]);
    places.set(found.place, (places.get(found.place) ?? new Set()).add(found.split));
  }
  if (split === undefined) {
    const mixed = [...places].find(([, names]) => names.size > 1);
    if (mixed === undefined) return { chosen: data, leftOut };
    const names = [...splits].map(([name, own]) => `${name} (${counted(own.length, "file")})`);
    throw new InputError(`"${where}" holds several splits of a data set: ${names.join(", ")}`, {
      hint: `choose one: --split ${[...mixed[1]][0]}`,
    });
  }
  const wanted = canonicalSplit(split.toLowerCase()) ?? split;
  const chosen = data.filter((file) => splitOf(file.name)?.split === wanted);
  if (chosen.length === 0) {
    const present =
      splits.size === 0 ? "no file's name tells its split" : `its splits are ${[...splits.keys()].join(", ")}`;
    throw new InputError(`"${where}" has no file of --split ${split}: ${present}`);
  }
  const taken = new Set(chosen);
  for (const file of data) if (!taken.has(file)) leftOut.push({ name: file.name, reason: "not of this split" });
  return { chosen, leftOut };
}

function withoutData(files: readonly { name: string }[], leftOut: readonly LeftOut[], where: string): InputError {
  if (files.some(({ name }) => name.endsWith(".arrow"))) {
    return new InputError(`"${where}" holds Arrow files, as save_to_disk of Python's datasets writes them`, {
      hint: 'write it as JSONL or Parquet: load_from_disk("FOLDER")["train"].to_parquet("data.parquet")',
    });
  }
  const names =
    files.length === 0
      ? "it is empty"
      : `it holds ${quotedList(
          leftOut.map(({ name }) => name),
          6,
        )}`;
  return new InputError(`"${where}" has no data file: ${names}`, { hint: SUPPORTED });
}

/** The split that a file's name, or else that of a folder above it, tells, and the folder in which it does so. */
function splitOf(name: string): { split: string; place: string } | undefined {
  const parts = name.split("/");
  for (let i = parts.length - 1; i >= 0; i--) {
    for (const word of (parts[i] ?? "").toLowerCase().split(/[^a-z]+/)) {
      const split = canonicalSplit(word);
      if (split !== undefined) return { split, place: parts.slice(0, i).join("/") };
    }
  }
  return undefined;
}

function canonicalSplit(word: string): string | undefined {
  if (word === "train" || word === "training") return "train";
  if (word === "test") return "test";
  return ["validation", "valid", "val", "dev"].includes(word) ? "validation" : undefined;
}

/** A sentence on what was left out; undefined where nothing was. */
export function describeLeftOut(leftOut: readonly LeftOut[]): string | undefined {
  if (leftOut.length === 0) return undefined;
  const reasons = new Map<string, string[]>();
  for (const { name, reason } of leftOut) reasons.set(reason, [...(reasons.get(reason) ?? []), name]);
  const parts = [...reasons].map(
    ([reason, names]) => `${names.length === 1 ? quoted(names[0]) : quotedList(names, 3)} (${reason})`,
  );
  return `${counted(leftOut.length, "file")} ${leftOut.length === 1 ? "is" : "are"} left out: ${parts.join("; ")}`;
}
