/** Checkpoints of real models' names, shapes and sizes that take no room on disk: sparse files full of zeros. */
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { requiredTensors } from "../../src/checkpoint/bind-weights.ts";
import { parseModelConfig } from "../../src/checkpoint/config/config-json.ts";

const shardBytes = 5e9;
const block = 128;

/** FP8 in blocks with scales, as GLM-5-FP8 is published, in shards of 5 GB; gives the bytes in all. */
export async function writeSparseCheckpoint(folder: string, configFile: string): Promise<number> {
  const json = JSON.parse(await readFile(configFile, "utf8"));
  json.quantization_config = { quant_method: "fp8", fmt: "e4m3", weight_block_size: [block, block] };
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(json));
  const shards: { header: Record<string, object>; end: number }[] = [];
  const add = (name: string, dtype: string, width: number, shape: number[]): void => {
    const bytes = shape.reduce((product, size) => product * size, width);
    const last = shards.at(-1);
    const fits = last !== undefined && last.end + bytes <= shardBytes;
    const shard = fits ? last : { header: {}, end: 0 };
    if (!fits) shards.push(shard);
    shard.header[name] = { dtype, shape, data_offsets: [shard.end, shard.end + bytes] };
    shard.end += bytes;
  };
  for (const { name, shape } of requiredTensors(parseModelConfig(json, configFile, "sparse"))) {
    const quantised = shape.length === 2 && /_proj|wq_b|wk\b/.test(name) && !name.includes("weights_proj");
    add(name, quantised ? "F8_E4M3" : "BF16", quantised ? 1 : 2, shape);
    if (quantised)
      add(
        `${name}_scale_inv`,
        "F32",
        4,
        shape.map((size) => Math.ceil(size / block)),
      );
  }
  const weightMap: Record<string, string> = {};
  for (const [index, { header, end }] of shards.entries()) {
    const number = (value: number) => String(value).padStart(5, "0");
    const name = `model-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
    for (const tensor of Object.keys(header)) weightMap[tensor] = name;
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const file = await open(join(folder, name), "w");
    await file.write(Buffer.concat([length, text]));
    await file.truncate(8 + text.length + end);
    await file.close();
  }
  await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
  return shards.reduce((total, { end }) => total + end, 0);
}
