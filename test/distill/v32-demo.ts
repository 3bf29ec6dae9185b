/**
 * The demo model as DeepSeek-V3.2 would store it: its indexers rotate halves of a head (i with i + d / 2) where GLM's rotate
 * neighbours (2 i with 2 i + 1). With the rows of their projections in the other order it is the same function.
 */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openTensors } from "../../src/checkpoint/shards.ts";

const demo = join(import.meta.dirname, "..", "..", "models", "demo");

export async function writeV32Demo(folder: string): Promise<void> {
  await cp(demo, folder, { recursive: true });
  const config = JSON.parse(await readFile(join(demo, "config.json"), "utf8"));
  const { indexer_types: _, mlp_layer_types: __, indexer_rope_interleave: ___, ...shared } = config;
  const changes = { model_type: "deepseek_v32", architectures: ["DeepseekV32ForCausalLM"] };
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...shared, ...changes }, null, 2));
  const { index_n_heads: heads, index_head_dim: dim, qk_rope_head_dim: rotated } = config;
  const path = join(folder, "model.safetensors");
  const bytes = await readFile(path);
  for (const { name, offset, length } of (await openTensors(demo)).tensors.values()) {
    const [, tensor] = /\.indexer\.(wq_b|wk|k_norm)\.(?:weight|bias)$/.exec(name) ?? [];
    if (tensor === undefined) continue;
    const count = tensor === "wq_b" ? heads : 1;
    const row = length / (count * dim);
    const old = Buffer.from(bytes.subarray(offset, offset + length));
    for (let head = 0; head < count; head++) {
      for (let i = 0; i < rotated; i++) {
        const from = head * dim + (i < rotated / 2 ? 2 * i : 2 * (i - rotated / 2) + 1);
        old.copy(bytes, offset + (head * dim + i) * row, from * row, (from + 1) * row);
      }
    }
  }
  await writeFile(path, bytes);
}
