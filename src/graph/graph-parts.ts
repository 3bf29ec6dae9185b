/** The parts of an ONNX file that nodes and graphs are made of, as protobuf messages. */
import { create } from "@bufbuild/protobuf";
import type { OnnxType } from "../checkpoint/dtype.ts";
import {
  type AttributeProto,
  AttributeProtoSchema,
  type GraphProto,
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
