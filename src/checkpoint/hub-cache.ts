/**
 * MODEL as users name it: a folder, or `owner/name` of a repository that the Hugging Face cache of this machine holds.
 * Nothing is downloaded. Layout of the cache: `models--owner--name/{refs/main, snapshots/<commit>/, blobs/}`.
 */
import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join, resolve, sep } from "node:path";
import { InputError } from "../base/errors.ts";
import { isThere, readUserFileIfPresent } from "../base/user-files.ts";

/** `owner/name`, and `@revision` where one is wanted. */
const repositoryId = /^([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w/-]*(?:\.[\w/-]+)*))?$/;

/** A folder of the cache: what it is a snapshot of. */
const snapshotFolder = /^models--(.+?)--(.+)$/;

/**
 * The folder that MODEL stands for.
 * @throws InputError if it is neither a folder nor a repository in the cache
 */
export async function findModel(text: string): Promise<string> {
  if (/^https?:\/\//i.test(text)) {
    throw new InputError(`MODEL is an address, "${text}"`, {
      hint: "a server that runs the model is named by --server URL, of search, loss and eval; -m FOLDER then holds config.json and the tokenizer",
    });
  }
  const there = await isThere(text);
  const match = there ? null : repositoryId.exec(text);
  // Whoever reads it reports what does not exist or is not a folder.
  if (match === null) return text;
  const [, id = "", revision] = match;
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const cache = getHFHubCachePath().replace(/^~(?=\/|$)/, homedir());
  const repository = join(cache, getRepoFolderName({ name: id, type: "model" }));
  const snapshot = await findSnapshot(repository, revision);
  if (snapshot !== undefined) return snapshot;
  const wanted = revision === undefined ? "" : ` --revision ${revision}`;
  throw new InputError(`There is no folder "${text}", and the Hugging Face cache "${cache}" has no such model`, {
    hint: `fetch it with: hf download ${id}${wanted}   (HF_HOME or HF_HUB_CACHE name another cache)`,
  });
}

async function findSnapshot(repository: string, revision: string | undefined): Promise<string | undefined> {
  const snapshots = await readdir(join(repository, "snapshots")).catch((): string[] => []);
  const ref = join(repository, "refs", ...(revision ?? "main").split("/"));
  const commit = (await readUserFileIfPresent(ref, `"${ref}"`))?.toString().trim();
  // A download of one commit leaves no ref; without a wish it is the only snapshot there is.
  const wanted = commit ?? revision ?? (snapshots.length === 1 ? snapshots[0] : undefined);
  return wanted !== undefined && snapshots.includes(wanted) ? join(repository, "snapshots", wanted) : undefined;
}

/** What a model in this folder is called: `owner/name` for a snapshot of the cache, otherwise the folder's name. */
export function modelName(folder: string): string {
  return repositoryOf(folder) ?? basename(resolve(folder));
}

/** The command that completes a snapshot of the cache; undefined for any other folder. */
export function downloadHint(folder: string): string | undefined {
  const id = repositoryOf(folder);
  return id === undefined ? undefined : `the download may not be complete: hf download ${id} continues it`;
}

function repositoryOf(folder: string): string | undefined {
  const [repository = "", snapshots] = resolve(folder).split(sep).slice(-3);
  const match = snapshots === "snapshots" ? snapshotFolder.exec(repository) : null;
  return match === null ? undefined : `${match[1]}/${match[2]}`;
}
