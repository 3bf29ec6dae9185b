/**
 * Where the weight files of a folder really lie. A checkpoint of the Hugging Face cache is a folder of symbolic links to
 * blobs, and ONNX Runtime refuses to follow links out of the folder that it is given. So links are resolved here, once:
 * the runtime gets the folder that holds what they lead to, and the files' names there.
 */
import { realpath } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { requireRegularFile } from "../base/user-files.ts";

interface WeightPlace {
  /** Path below the common folder, with slashes: what a graph calls the file. */
  location: string;
  bytes: number;
  /** Names that the file has on its disk; ONNX Runtime refuses to read weights that have several. */
  hardLinks: number;
}

export interface WeightPlaces {
  /** The deepest folder that holds all of the files: the blobs' folder of a cached repository, mostly the folder itself. */
  folder: string;
  /** By the file's name in the checkpoint's folder. */
  files: Map<string, WeightPlace>;
}

/**
 * Follows the links of weight files.
 * @throws InputError for anything but a regular file, and for a link that leads nowhere
 */
export async function locateWeights(folder: string, names: readonly string[]): Promise<WeightPlaces> {
  const found: { name: string; path: string; bytes: number; hardLinks: number }[] = [];
  for (const name of names) {
    const path = join(folder, name);
    const { size, nlink } = await requireRegularFile(path, `"${path}"`);
    found.push({ name, path: await realpath(path), bytes: size, hardLinks: nlink });
  }
  const common = found.map(({ path }) => dirname(path)).reduce(commonFolder);
  const places = found.map(({ name, path, bytes, hardLinks }): [string, WeightPlace] => [
    name,
    { location: relative(common, path).split(sep).join("/"), bytes, hardLinks },
  ]);
  return { folder: common, files: new Map(places) };
}

function commonFolder(left: string, right: string): string {
  let common = left;
  while (common !== right && !right.startsWith(common.endsWith(sep) ? common : `${common}${sep}`)) {
    common = dirname(common);
  }
  return common;
}
