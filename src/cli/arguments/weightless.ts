/** Models of which only config.json is here. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { findModel } from "../../checkpoint/hub-cache.ts";

const weightFile = /\.safetensors(\.index\.json)?$|\.onnx$|^manifest\.json$/;

/** The folder that MODEL stands for, or that of a config.json; and whether it has weights, or is to be refused by who reads it. */
export async function findFolder(text: string): Promise<{ folder: string; hasWeights: boolean }> {
  const found = await findModel(text);
  if (basename(found) === "config.json" && (await isFolder(found)) === false) {
    return { folder: dirname(found), hasWeights: false };
  }
  if (!(await isFolder(found))) return { folder: found, hasWeights: true };
  const names = await readdir(found);
  return { folder: found, hasWeights: !names.includes("config.json") || names.some((name) => weightFile.test(name)) };
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}
