/** Positions of a batch's rows, sequence after sequence, as the training graphs take them: int64 `[batch * length]`. */
export function rowPositions({ batch, length }: { batch: number; length: number }): BigInt64Array {
  return BigInt64Array.from({ length: batch * length }, (_, row) => BigInt(row % length));
}
