/** Adapters (LoRA and the like) in the folder of a checkpoint: transformers applies them, indexcache does not. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { readTextIfPresent } from "../formats/text-file.ts";

const configName = "adapter_config.json";
const fileNames = /^adapter_model\.(safetensors|bin)$|^adapter_model-.*\.safetensors$|^adapters?\.(safetensors|npz)$/;
const text = z.string().optional().catch(undefined);
const schema = z.looseObject({
  peft_type: text,
  r: z.number().optional().catch(undefined),
  base_model_name_or_path: text,
});

export interface Adapter {
  /** Its files in the folder. */
  files: string[];
  /** For people: `LORA, rank 8`. */
  kind: string;
  base: string | undefined;
}

/** The adapter that lies in a folder, or undefined. */
export async function findAdapter(folder: string): Promise<Adapter | undefined> {
  const entries = await readdir(folder).catch((): string[] => []);
  const files = entries.filter((name) => name === configName || fileNames.test(name)).sort();
  if (files.length === 0) return undefined;
  const path = join(folder, configName);
  const content = files.includes(configName) ? await readTextIfPresent(path, `"${path}"`) : undefined;
  const fields = schema.safeParse(parse(content ?? "{}"));
  const { peft_type: type = "of an unknown kind", r, base_model_name_or_path: base } = fields.data ?? {};
  return { files, kind: r === undefined ? type : `${type}, rank ${r}`, base };
}

function parse(content: string): unknown {
  try {
    return JSON.parse(content);
  } catch {
    return {};
  }
}

/** What is said of it: of what, and that it is not applied. */
export function describeAdapter({ files, kind }: Adapter): string {
  return `an adapter (${kind}; ${files.join(", ")}) lies beside the weights and is not applied`;
}

/** @throws InputError if an adapter lies in the folder: transformers would run another model than these weights */
export async function refuseAdapter(folder: string): Promise<void> {
  const adapter = await findAdapter(folder);
  if (adapter === undefined) return;
  throw new InputError(`"${folder}": ${describeAdapter(adapter)}; transformers would apply it`, {
    hint: `merge it into the weights (peft: merge_and_unload), or move ${adapter.files.join(" and ")} elsewhere to measure the model without it`,
  });
}
