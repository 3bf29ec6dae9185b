/** `indexcache.json`, the manifest of an exported model folder: what the folder is and the hash of every file in it. */
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { readTextIfPresent } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import { contractVersion, manifestName } from "./contract.ts";

const fileSchema = z.object({ bytes: z.number().int().nonnegative(), sha256: z.string().regex(/^[0-9a-f]{64}$/) });

const manifestSchema = z.object({
  contract_version: z.number().int(),
  tool: z.object({ name: z.string(), version: z.string() }),
  architecture: z.string(),
  layers: z.number().int().positive(),
  index_topk: z.number().int().positive(),
  /** F for each layer that owns an indexer, S for the others. */
  indexer_layers: z.string(),
  /** Files that hold weights; all others are graphs, tokenizer and configuration. */
  weight_files: z.array(z.string()).min(1),
  files: z.record(z.string(), fileSchema),
});

export type Manifest = z.infer<typeof manifestSchema>;

/**
 * The manifest of a folder, or undefined if there is none (the folder is then a plain checkpoint).
 * @throws InputError if it is malformed or of another contract version
 */
export async function readManifest(folder: string): Promise<Manifest | undefined> {
  const path = join(folder, manifestName);
  const text = await readTextIfPresent(path, `"${path}"`);
  if (text === undefined) return undefined;
  const manifest = parseJson(text, manifestSchema, `"${path}"`);
  if (manifest.contract_version !== contractVersion) {
    throw new InputError(
      `"${path}": contract_version ${manifest.contract_version}; this tool reads version ${contractVersion}`,
      { hint: "export the checkpoint again" },
    );
  }
  return manifest;
}

export function encodeManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}
