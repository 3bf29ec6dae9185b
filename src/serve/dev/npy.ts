/** NumPy's file format for a matrix of float32, which vLLM sends as base64. */

const magic = Buffer.from("\x93NUMPY\x01\x00", "latin1");
/** The data begin at a multiple of this. */
const alignment = 64;

/** @param values `[rows, columns]`, row by row */
export function encodeNpy(values: Float32Array, rows: number, columns: number): Buffer {
  const described = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const before = magic.length + 2;
  const total = Math.ceil((before + described.length + 1) / alignment) * alignment;
  const header = Buffer.alloc(total, " ");
  magic.copy(header);
  header.writeUInt16LE(total - before, magic.length);
  header.write(described, before, "latin1");
  header[total - 1] = 0x0a;
  return Buffer.concat([header, Buffer.from(values.buffer, values.byteOffset, values.byteLength)]);
}
