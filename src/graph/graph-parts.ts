/** The parts of an ONNX file that nodes and graphs are made of, as protobuf messages. */
import { create } from "@bufbuild/protobuf";
import { OnnxType } from "../checkpoint/dtype.ts";
import {
  type AttributeProto,
  AttributeProtoSchema,
  type GraphProto,
  type SparseTensorProto,
  SparseTensorProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "./onnx_pb.ts";

/** A number of rows that is known at run time only is written as a name. */
export type Dimension = number | string;

export type Attributes = Record<string, number | number[] | string | { float: number } | { graph: GraphProto }>;

const attributeType = { float: 1, int: 2, string: 3, graph: 5, ints: 7 } as const;
const externalLocation = 1;

export function attribute(name: string, value: Attributes[string]): AttributeProto {
  if (typeof value === "number")
    return create(AttributeProtoSchema, { name, type: attributeType.int, i: BigInt(value) });
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: attributeType.string, s: new TextEncoder().encode(value) });
  }
  if (Array.isArray(value)) {
    return create(AttributeProtoSchema, { name, type: attributeType.ints, ints: value.map(BigInt) });
  }
  if ("float" in value) return create(AttributeProtoSchema, { name, type: attributeType.float, f: value.float });
  return create(AttributeProtoSchema, { name, type: attributeType.graph, g: value.graph });
}

export function external(
  name: string,
  dataType: OnnxType,
  shape: readonly number[],
  { location, offset, length }: { location: string; offset: number; length: number },
): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dims: shape.map(BigInt),
    dataType,
    dataLocation: externalLocation,
    externalData: [
      { key: "location", value: location },
      { key: "offset", value: String(offset) },
      { key: "length", value: String(length) },
    ],
  });
}

/** A float16 tensor of zeros, but for its first element, whose bits are `first`. The file holds that one alone. */
export function zerosBut(name: string, shape: readonly number[], first: number): SparseTensorProto {
  const bytes = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const one = { dims: [1n], dataType: OnnxType.float16, rawData: bytes(Uint16Array.of(first)) };
  const place = { dims: [1n], dataType: OnnxType.int64, rawData: bytes(BigInt64Array.of(0n)) };
  return create(SparseTensorProtoSchema, {
    values: create(TensorProtoSchema, { ...one, name }),
    indices: create(TensorProtoSchema, { ...place, name: `${name} indices` }),
    dims: shape.map(BigInt),
  });
}

export function valueInfo(name: string, type: OnnxType | undefined, shape: Dimension[] | undefined): ValueInfoProto {
  if (type === undefined || shape === undefined) return create(ValueInfoProtoSchema, { name });
  const dim = shape.map((size) =>
    typeof size === "number"
      ? { value: { case: "dimValue" as const, value: BigInt(size) } }
      : { value: { case: "dimParam" as const, value: size } },
  );
  return create(ValueInfoProtoSchema, {
    name,
    type: { tensorType: { elemType: type, shape: { dim } } },
  });
}
