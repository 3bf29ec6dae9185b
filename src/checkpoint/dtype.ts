/** Storage types of safetensors files that DSA checkpoints use, and the ONNX element types that ONNX Runtime reads them as. */

export const OnnxType = {
  float: 1,
  uint8: 2,
  uint16: 4,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
  float8e4m3fn: 17,
} as const;

export type OnnxType = (typeof OnnxType)[keyof typeof OnnxType];

/**
 * Bytes of one element, for every dtype that the safetensors format names; unknown ones are refused. Some elements are
 * smaller than a byte, and several of them share bytes.
 */
export const dtypeBytes: Readonly<Record<string, number>> = {
  F4: 0.5,
  F6_E2M3: 0.75,
  F6_E3M2: 0.75,
  C64: 8,
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
};

/** Numbers in a tensor of this shape. */
export function elementsIn(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The weight dtypes that a graph can read straight out of a safetensors file. */
export const weightTypes: Readonly<Record<string, OnnxType>> = {
  F32: OnnxType.float,
  F16: OnnxType.float16,
  BF16: OnnxType.bfloat16,
  F8_E4M3: OnnxType.float8e4m3fn,
};

/** Scales that are powers of two, stored as their exponents (`ue8m0`); some tools call them plain bytes. */
export const exponentTypes: Readonly<Record<string, OnnxType>> = { F8_E8M0: OnnxType.uint8, U8: OnnxType.uint8 };

/** The ONNX type as which a tensor of a dtype is read. */
export function storedType(dtype: string): OnnxType | undefined {
  return weightTypes[dtype] ?? exponentTypes[dtype];
}

/**
 * Four bytes at a time: with all bits but the exponent's masked out, one more in its last place carries into `high` only
 * where every bit of the exponent is set. FP8 E4M3 has no infinity, and NaN where the mantissa's bits are set as well.
 */
const exponents: Readonly<Record<string, { width: number; mask: number; one: number; high: number }>> = {
  F8_E4M3: { width: 1, mask: 0x7f7f7f7f, one: 0x01010101, high: 0x80808080 },
  BF16: { width: 2, mask: 0x7f807f80, one: 0x00800080, high: 0x80008000 },
  F16: { width: 2, mask: 0x7c007c00, one: 0x04000400, high: 0x80008000 },
  F32: { width: 4, mask: 0x7f800000, one: 0x00800000, high: 0x80000000 },
};

/**
 * Index of the first element of `bytes` that is NaN or infinite, or -1.
 * @param dtype one that `storedType` knows; of powers of two, the largest exponent is NaN
 */
export function firstNonFinite(bytes: Uint8Array, dtype: string): number {
  if (Object.hasOwn(exponentTypes, dtype)) return bytes.indexOf(0xff);
  const layout = exponents[dtype];
  if (layout === undefined) throw new RangeError(`firstNonFinite of dtype ${dtype}`);
  const { width, mask, one, high } = layout;
  const whole = bytes.length & ~3;
  const source = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(source.buffer, source.byteOffset, whole / 4);
  // Most words are in order: eight of them are looked at together.
  const start = firstSuspicious(words, mask | 0, one | 0, high | 0);
  for (let i = start; i < words.length; i++) {
    const carried = (((words[i] as number) & mask) + one) & high;
    if (carried !== 0) return Math.floor((4 * i + lowestByte(carried)) / width);
  }
  if (whole === bytes.length) return -1;
  const rest = new Uint8Array(4);
  rest.set(bytes.subarray(whole));
  const inRest = firstNonFinite(rest, dtype);
  return inRest < 0 ? -1 : whole / width + inRest;
}

/** Index of the first group of eight words that one is not finite in, or of the words after the last group. */
function firstSuspicious(words: Int32Array, mask: number, one: number, high: number): number {
  const last = words.length & ~7;
  for (let i = 0; i < last; i += 8) {
    let carried = 0;
    for (let lane = i; lane < i + 8; lane++) carried |= ((words[lane] as number) & mask) + one;
    if ((carried & high) !== 0) return i;
  }
  return last;
}

/** Index of the lowest byte that is not 0; weights are little-endian, and so is every machine that runs this. */
function lowestByte(word: number): number {
  return Math.floor((31 - Math.clz32(word & -word)) / 8);
}
