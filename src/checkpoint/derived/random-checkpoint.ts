/** Writes a checkpoint of random weights: the shapes of a model without its weights, which its speed does not depend on. */
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../../base/files.ts";
import { Random } from "../../base/random.ts";
import { RandomNumbers } from "../../base/random-numbers.ts";
import { requiredTensors } from "../bind-weights.ts";
import type { ReducedConfig } from "../config/reduced-config.ts";
import { elementsIn } from "../dtype.ts";

/** Elements that are written at a time. */
const blockElements = 4 << 20;

/** Bytes that the weights of a config take in float32. */
export function randomWeightBytes({ config }: Pick<ReducedConfig, "config">): number {
  return 4 * requiredTensors(config).reduce((total, { shape }) => total + elementsIn(shape), 0);
}

/**
 * Writes config.json and model.safetensors (float32) into `folder`. Norms are near 1, matrices of a scale that keeps
 * activations of variance 1, everything else small.
 * @throws RuntimeFailure if the disk is full
 */
export async function writeRandomCheckpoint(
  folder: string,
  { json, config }: Pick<ReducedConfig, "json" | "config">,
  seed: number,
  signal?: AbortSignal,
): Promise<void> {
  const tensors = requiredTensors(config);
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const { name, shape } of tensors) {
    const begin = end;
    end += 4 * elementsIn(shape);
    header[name] = { dtype: "F32", shape, data_offsets: [begin, end] };
  }
  // Blanks after the header put the data on a multiple of 64 bytes, where it can be mapped.
  const text = JSON.stringify(header);
  const headerBytes = Buffer.from(text.padEnd(64 * Math.ceil((text.length + 8) / 64) - 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes.length));
  const numbers = new RandomNumbers(Random.forPart(seed, "weights"));
  try {
    await writeFile(join(folder, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
    const file = await open(join(folder, "model.safetensors"), "wx");
    try {
      await file.write(Buffer.concat([length, headerBytes]));
      for (const { name, shape } of tensors) {
        for (let left = elementsIn(shape); left > 0; left -= blockElements) {
          if (signal?.aborted) throw new InterruptedError("Interrupted");
          await file.write(weightsOf(name, shape, numbers.next(Math.min(left, blockElements))));
        }
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new RuntimeFailure(`Cannot write random weights to "${folder}": ${describeSystemError(code)}`, {
      cause: error,
      hint: "they go to the system's folder for temporary files (TMPDIR)",
    });
  }
}

function weightsOf(name: string, shape: readonly number[], values: Float32Array): Uint8Array {
  const isNorm = name.endsWith("norm.weight");
  const scale = shape.length === 1 ? 0.1 : (shape.at(-1) ?? 1) ** -0.5;
  for (let i = 0; i < values.length; i++) values[i] = (isNorm ? 1 : 0) + scale * (values[i] as number);
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
