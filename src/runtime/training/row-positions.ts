import type { Tensor } from "onnxruntime-node";
import type { OnnxSession } from "../session/onnx-session.ts";

/** Positions of a batch's rows, sequence after sequence, as the training graphs take them: int64 `[batch * length]`. */
export function rowPositions(session: OnnxSession, { batch, length }: { batch: number; length: number }): Tensor {
  const positions = BigInt64Array.from({ length: batch * length }, (_, row) => BigInt(row % length));
  return new session.Tensor("int64", positions, [positions.length]);
}
