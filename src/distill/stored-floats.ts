/** Floats in the dtypes of safetensors files, rounded to the nearest, ties to even; FP8 with scales for its blocks. */
import { InputError } from "../base/errors.ts";
import { fromBfloat16, toBfloat16 } from "../runtime/training/boundary-states.ts";

export const storableDtypes = ["F32", "BF16", "F16"];
/** U8: exponents, as F8_E8M0. */
export const storableScales = ["F32", "BF16", "F16", "F8_E8M0", "U8"];

/** Largest number of FP8 E4M3. */
const largestFp8 = 448;

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

/**
 * FP8 E4M3 numbers and their scales, anew for these values: each block's largest number becomes the largest of the format.
 * @param values a matrix of rows of `width`
 * @param block rows and columns that share a scale; blocks at the lower and right edge are partial
 */
export function encodeScaled(
  values: Float32Array,
  width: number,
  block: { rows: number; columns: number },
  scaleDtype: string,
): { weights: Uint8Array; scales: Uint8Array } {
  const height = values.length / width;
  const along = Math.ceil(width / block.columns);
  const across = Math.ceil(height / block.rows);
  const largest = new Float64Array(across * along);
  const blockOf = (at: number): number =>
    Math.floor(Math.floor(at / width) / block.rows) * along + Math.floor((at % width) / block.columns);
  for (let i = 0; i < values.length; i++) {
    const place = blockOf(i);
    largest[place] = Math.max(largest[place] as number, Math.abs(values[i] as number));
  }
  const { bytes, numbers } = encodeScales(
    Float64Array.from(largest, (value) => value / largestFp8),
    scaleDtype,
  );
  const weights = Uint8Array.from(values, (value, at) => toFloat8(value / (numbers[blockOf(at)] as number)));
  return { weights, scales: bytes };
}

/** Scales as they are stored, and the numbers that readers will see; a block of zeros has the scale 1. */
function encodeScales(exact: Float64Array, dtype: string): { bytes: Uint8Array; numbers: ArrayLike<number> } {
  const wanted = exact.map((value) => (value > 0 ? value : 1));
  if (dtype === "F8_E8M0" || dtype === "U8") {
    const exponents = wanted.map((value) => Math.min(127, Math.max(-127, Math.ceil(Math.log2(value)))));
    return { bytes: Uint8Array.from(exponents, (value) => value + 127), numbers: exponents.map((value) => 2 ** value) };
  }
  const floats = Float32Array.from(wanted);
  const bytes = encodeFloats(floats, dtype);
  if (dtype === "F32") return { bytes, numbers: floats };
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return { bytes, numbers: dtype === "BF16" ? fromBfloat16(halves) : Float64Array.from(halves, fromFloat16) };
}

/** Bits of the nearest FP8 E4M3 number; beyond the largest, the largest. */
function toFloat8(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const size = Math.min(largestFp8, Math.abs(value));
  if (size === 0) return sign;
  // Below 2^-6 the numbers are 2^-9 apart; the code after the last of them is that of 2^-6.
  const exponent = Math.max(-6, Math.floor(Math.log2(size)));
  const steps = roundToEven(size / 2 ** (exponent - 3));
  return sign | ((exponent + 6) * 8 + steps);
}

function roundToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

function fromFloat16(bits: number): number {
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  const size = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -size : size;
}

const word = new DataView(new ArrayBuffer(4));

/** Bits of the nearest float16; values beyond its range become infinite. */
function toFloat16(value: number): number {
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
