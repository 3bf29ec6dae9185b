/** Writes ONNX graphs node by node. What a graph of a model needs beyond that, its weights above all, is in `model-graph.ts`. */
import { create, toBinary } from "@bufbuild/protobuf";
import { hashBytes } from "../base/files.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import { type Attributes, attribute, type Dimension, valueInfo } from "./graph-parts.ts";
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type SparseTensorProto,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
} from "./onnx_pb.ts";

/** ONNX opset and IR version of every graph; ONNX Runtime 1.17 and later load them. */
const opset = 21;
const irVersion = 10n;

/** A tensor of the graph under construction, by name. */
export type Value = string & { readonly value?: never };

const contribDomain = "com.microsoft";

export class GraphBuilder {
  readonly #nodes: NodeProto[] = [];
  readonly #initializers = new Map<string, TensorProto>();
  readonly #sparse = new Map<string, SparseTensorProto>();
  readonly #inputs: ValueInfoProto[] = [];
  readonly #outputs: ValueInfoProto[] = [];
  /** What this graph has made once: constants, weights as they are computed with. */
  readonly #known = new Map<string, Value>();
  /** Shared with the branches: ONNX forbids a name of an outer graph in an inner one. */
  readonly #counter: { next: number };

  constructor(outer?: GraphBuilder) {
    this.#counter = outer === undefined ? { next: 0 } : outer.#counter;
  }

  /** The graph of a branch or loop body inside this one. */
  protected inner(): this {
    return new GraphBuilder(this) as this;
  }

  input(name: string, type: OnnxType, shape: Dimension[]): Value {
    this.#inputs.push(valueInfo(name, type, shape));
    return name;
  }

  /** Names `value` as an output of the graph; an Identity is added where the tensor has another name. */
  output(name: string, value: Value, type: OnnxType, shape: Dimension[]): void {
    if (value !== name) this.node("Identity", [value], {}, name);
    this.#outputs.push(valueInfo(name, type, shape));
  }

  /** Adds a node with one output and returns the output. */
  node(opType: string, inputs: Value[], attributes: Attributes = {}, output = this.fresh(opType)): Value {
    return this.nodes(opType, inputs, attributes, [output])[0] as Value;
  }

  /** Adds a node of ONNX Runtime's own operator set: its output, or its outputs where their names are given. */
  contrib(opType: string, inputs: Value[], attributes: Attributes = {}, outputs = [this.fresh(opType)]): Value {
    return this.nodes(opType, inputs, attributes, outputs, contribDomain)[0] as Value;
  }

  /** Adds a node with several outputs: their names, or how many. */
  nodes(opType: string, inputs: Value[], attributes: Attributes, outputs: string[] | number, domain = ""): Value[] {
    const names = typeof outputs === "number" ? Array.from({ length: outputs }, () => this.fresh(opType)) : outputs;
    this.#nodes.push(
      create(NodeProtoSchema, {
        opType,
        domain,
        name: `${names[0]}/node`,
        input: inputs,
        output: names,
        attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
      }),
    );
    return names;
  }

  /**
   * `If` with as many outputs as `then` returns values; `otherwise` has to return as many, and is told how many. A branch may
   * read tensors of this graph; weights that only a branch needs are best made inside it, where ONNX Runtime prepacks them.
   */
  branch(
    condition: Value,
    then: (inside: this) => Value[],
    otherwise: (inside: this, count: number) => Value[],
  ): Value[] {
    const [first, second] = [this.inner(), this.inner()];
    const count = first.#ends(then(first));
    second.#ends(otherwise(second, count));
    const branches = { then_branch: { graph: first.#graph("then") }, else_branch: { graph: second.#graph("else") } };
    return this.nodes("If", [condition], branches, count);
  }

  /** `If` with one output. */
  either(condition: Value, then: (inside: this) => Value, otherwise: (inside: this) => Value): Value {
    const [value] = this.branch(
      condition,
      (inside) => [then(inside)],
      (inside) => [otherwise(inside)],
    );
    return value as Value;
  }

  /**
   * `Loop` over `trips` iterations without state: what `body` returns for each iteration is stacked along a new first axis.
   * The body's outputs have to keep their shapes from one iteration to the next.
   */
  loop(trips: Value, body: (iteration: this, index: Value) => Value[]): Value[] {
    const inner = this.inner();
    const index = inner.input(this.fresh("iteration"), OnnxType.int64, []);
    const continues = inner.input(this.fresh("condition"), OnnxType.bool, []);
    const count = inner.#ends([continues, ...body(inner, index)]);
    return this.nodes("Loop", [trips, ""], { body: { graph: inner.#graph("body") } }, count - 1);
  }

  /** Makes values the outputs of an inner graph; returns how many they are. */
  #ends(values: Value[]): number {
    for (const value of values) this.#outputs.push(valueInfo(this.node("Identity", [value]), undefined, undefined));
    return values.length;
  }

  /** An int64 constant: a list, or a scalar where a number is given. */
  int(values: number | number[]): Value {
    const list = typeof values === "number" ? [values] : values;
    const data = BigInt64Array.from(list, (value) => BigInt(value));
    return this.#constant(OnnxType.int64, typeof values === "number" ? [] : [list.length], data);
  }

  /** An int32 constant: a scalar, or a tensor where a shape is given with as many values. */
  int32(values: number | number[], shape: number[] = typeof values === "number" ? [] : [values.length]): Value {
    return this.#constant(OnnxType.int32, shape, Int32Array.from(typeof values === "number" ? [values] : values));
  }

  /** A float scalar, or a tensor, a vector unless a shape is given with as many values. */
  float(values: number | Float32Array, shape = typeof values === "number" ? [] : [values.length]): Value {
    return this.#constant(OnnxType.float, shape, typeof values === "number" ? Float32Array.of(values) : values);
  }

  reshape(x: Value, shape: number[]): Value {
    return this.node("Reshape", [x, this.int(shape)]);
  }

  cast(x: Value, type: OnnxType): Value {
    return this.node("Cast", [x], { to: type });
  }

  /** One dimension of a tensor as an int64 vector of length 1. */
  dimension(x: Value, axis: number): Value {
    return this.node("Shape", [x], { start: axis, end: axis + 1 });
  }

  /** Elements `start` to `end` of one axis. */
  slice(x: Value, axis: number, start: number, end: number): Value {
    return this.node("Slice", [x, this.int([start]), this.int([end]), this.int([axis])]);
  }

  /**
   * x, with a number of rows that ONNX Runtime cannot foresee: declare the input that it comes from with a name for that number.
   * It plans to use buffers of equal, known sizes again, and a buffer that the next layer will want is kept until then: of
   * chunks that each have another size, all of them. What is made of x is freed after its last reader.
   */
  unforeseen(x: Value): Value {
    return this.node("Slice", [x, this.int([0]), this.dimension(x, 0), this.int([0])]);
  }

  /** The finished model. `metadata` lands in the file's metadata_props. */
  model(name: string, metadata: Record<string, string> = {}): ModelProto {
    return create(ModelProtoSchema, {
      irVersion,
      producerName: "indexcache",
      graph: this.#graph(name),
      opsetImport: [
        { domain: "", version: BigInt(opset) },
        { domain: contribDomain, version: 1n },
      ],
      metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    });
  }

  /** A name that no tensor has yet. */
  protected fresh(opType: string): string {
    return `${opType}_${this.#counter.next++}`;
  }

  /** What `make` returned the first time. */
  protected once(key: string, make: () => Value): Value {
    const known = this.#known.get(key) ?? make();
    this.#known.set(key, known);
    return known;
  }

  /** Adds a tensor of the file to the graph, under its name; the same name again is the same tensor. */
  protected initializer(tensor: TensorProto): Value {
    if (!this.#initializers.has(tensor.name)) this.#initializers.set(tensor.name, tensor);
    return tensor.name;
  }

  protected sparseInitializer(name: string, tensor: SparseTensorProto): Value {
    if (!this.#sparse.has(name)) this.#sparse.set(name, tensor);
    return name;
  }

  #constant(dataType: OnnxType, shape: number[], data: ArrayBufferView): Value {
    const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return this.once(`constant ${dataType} [${shape.join()}] ${hashBytes(rawData)}`, () =>
      this.initializer(
        create(TensorProtoSchema, { name: this.fresh("constant"), dims: shape.map(BigInt), dataType, rawData }),
      ),
    );
  }

  #graph(name: string): GraphProto {
    return create(GraphProtoSchema, {
      name,
      node: this.#nodes,
      initializer: [...this.#initializers.values()],
      sparseInitializer: [...this.#sparse.values()],
      input: this.#inputs,
      output: this.#outputs,
    });
  }
}

export function encodeModel(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}
