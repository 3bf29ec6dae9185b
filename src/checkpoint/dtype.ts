/** Storage types of safetensors files that DSA checkpoints use, and the ONNX element types that ONNX Runtime reads them as. */

export const OnnxType = {
  float: 1,
  uint8: 2,
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
 * Index of the first element of `bytes` that is NaN or infinite, or -1.
 * @param dtype one that `storedType` knows; FP8 E4M3 has no infinity, only NaN, and so have exponents
 */
export function firstNonFinite(bytes: Uint8Array, dtype: string): number {
  switch (dtype) {
    case "F8_E4M3":
      for (let i = 0; i < bytes.length; i++) if (((bytes[i] as number) & 0x7f) === 0x7f) return i;
      return -1;
    case "F8_E8M0":
    case "U8":
      return bytes.indexOf(0xff);
    case "BF16":
    case "F16": {
      const exponent = dtype === "BF16" ? 0x7f80 : 0x7c00;
      const words = aligned(bytes, 2, (buffer, offset, length) => new Uint16Array(buffer, offset, length));
      for (let i = 0; i < words.length; i++) if (((words[i] as number) & exponent) === exponent) return i;
      return -1;
    }
    case "F32": {
      const words = aligned(bytes, 4, (buffer, offset, length) => new Uint32Array(buffer, offset, length));
      for (let i = 0; i < words.length; i++) if (((words[i] as number) & 0x7f800000) === 0x7f800000) return i;
      return -1;
    }
    default:
      throw new RangeError(`firstNonFinite of dtype ${dtype}`);
  }
}

/** A typed view of bytes, copied first where the offset does not allow a view. */
function aligned<T>(bytes: Uint8Array, width: number, view: (b: ArrayBufferLike, o: number, n: number) => T): T {
  const source = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  return view(source.buffer, source.byteOffset, Math.floor(source.byteLength / width));
}
