/** `__metadata__` of a safetensors file, which says for which framework it was written. */
import { z } from "zod";
import { openUserFile } from "../base/user-files.ts";

const schema = z.object({ __metadata__: z.record(z.string(), z.string()).optional() });

/**
 * The strings beside the tensors, as they are; undefined if there are none, or something else is in their place.
 * @param path a file whose header `readSafetensorsHeader` has checked
 */
export async function readSafetensorsMetadata(path: string): Promise<Record<string, string> | undefined> {
  const file = await openUserFile(path, `"${path}"`);
  try {
    const prefix = Buffer.alloc(8);
    await file.read(prefix, 0, 8, 0);
    const header = Buffer.alloc(Number(prefix.readBigUInt64LE()));
    await file.read(header, 0, header.length, 8);
    return schema.safeParse(JSON.parse(header.toString("utf8"))).data?.__metadata__;
  } finally {
    await file.close();
  }
}
