/** Floats in the dtypes of safetensors files, rounded to the nearest, ties to even. */
import { InputError } from "../base/errors.ts";
import { toBfloat16 } from "../runtime/training/boundary-states.ts";

export function encodeFloats(values: Float32Array, dtype: string): Uint8Array {
  switch (dtype) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "BF16":
      return new Uint8Array(toBfloat16(values).buffer);
    case "F16":
      return new Uint8Array(Uint16Array.from(values, toFloat16).buffer);
    default:
      throw new InputError(`Trained indexers cannot be stored as ${dtype}`);
  }
}

const word = new DataView(new ArrayBuffer(4));

/** Bits of the nearest float16; values beyond its range become infinite. */
export function toFloat16(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  const mantissa = bits & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200);
  const shifted = exponent - 112;
  if (shifted >= 31) return sign | 0x7c00;
  if (shifted <= 0) {
    if (shifted < -10) return sign;
    const whole = mantissa | 0x800000;
    const drop = 14 - shifted;
    return sign | roundedShift(whole, drop);
  }
  return sign + roundedShift((shifted << 23) | mantissa, 13);
}

/** `value / 2^drop`, to the nearest integer, ties to even. */
function roundedShift(value: number, drop: number): number {
  const half = 2 ** (drop - 1);
  const quotient = Math.floor(value / 2 ** drop);
  const rest = value - quotient * 2 ** drop;
  return rest > half || (rest === half && quotient % 2 === 1) ? quotient + 1 : quotient;
}
