/** A Hugging Face cache as `hf download` leaves it: snapshots are folders of symbolic links to blobs. */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readSafetensorsHeader } from "../../src/checkpoint/safetensors.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";

/**
 * Puts a model into a cache, split into two shards.
 * @param home what HF_HOME names
 * @returns the snapshot's folder
 */
export async function cacheInTwoShards(home: string, id: string, source: string): Promise<string> {
  const repository = join(home, "hub", `models--${id.replace("/", "--")}`);
  const snapshot = join(repository, "snapshots", commit);
  for (const folder of ["blobs", "refs", join("snapshots", commit)]) {
    await mkdir(join(repository, folder), { recursive: true });
  }
  await writeFile(join(repository, "refs", "main"), commit);
  const store = async (name: string, content: Uint8Array): Promise<void> => {
    const blob = createHash("sha256").update(content).digest("hex");
    await writeFile(join(repository, "blobs", blob), content);
    await symlink(join("..", "..", "blobs", blob), join(snapshot, name));
  };
  for (const name of await readdir(source)) {
    if (name !== "model.safetensors") await store(name, await readFile(join(source, name)));
  }
  for (const [name, content] of Object.entries(await twoShards(join(source, "model.safetensors")))) {
    await store(name, content);
  }
  return snapshot;
}

/** The files that hold the tensors of one safetensors file in two: every other one each. */
async function twoShards(path: string): Promise<Record<string, Uint8Array>> {
  const data = await readFile(path);
  const tensors = [...(await readSafetensorsHeader(path)).values()];
  const weightMap: Record<string, string> = {};
  const files: Record<string, Uint8Array> = {};
  for (const shard of [0, 1]) {
    const file = `model-0000${shard + 1}-of-00002.safetensors`;
    const header: Record<string, object> = {};
    const parts: Uint8Array[] = [];
    let end = 0;
    for (const { name, dtype, shape, offset, length } of tensors.filter((_, index) => index % 2 === shard)) {
      header[name] = { dtype, shape, data_offsets: [end, end + length] };
      parts.push(data.subarray(offset, offset + length));
      weightMap[name] = file;
      end += length;
    }
    const json = Buffer.from(JSON.stringify(header));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(json.length));
    files[file] = Buffer.concat([prefix, json, ...parts]);
  }
  const index = { metadata: { total_size: data.length }, weight_map: weightMap };
  return { ...files, "model.safetensors.index.json": Buffer.from(JSON.stringify(index)) };
}
