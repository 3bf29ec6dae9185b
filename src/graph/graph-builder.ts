/**
 * Writes ONNX graphs node by node. Weights stay where they are: an initializer names a byte range of a safetensors file,
 * and the Cast and Transpose behind it are folded by ONNX Runtime when the graph is loaded.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { hashBytes } from "../base/files.ts";
import { exponentTypes, OnnxType, storedType, weightTypes } from "../checkpoint/dtype.ts";
import type { BlockScale, Weight } from "../checkpoint/weights.ts";
import { type Attributes, attribute, type Dimension, external, valueInfo } from "./graph-parts.ts";
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type SparseTensorProto,
  SparseTensorProtoSchema,
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

export interface GraphSettings {
  /** What weights are cast to and activations are: float, or float16 on a GPU. */
  precision: typeof OnnxType.float | typeof OnnxType.float16;
  /**
   * Where a weight that a branch or loop body asks for is made. `inner`: in that body, where ONNX Runtime prepacks it
   * (CPU). `outer`: in the outermost graph, once for all the bodies that read it (a GPU has no prepacking).
   */
  weights: "inner" | "outer";
}

const cpuSettings: GraphSettings = { precision: OnnxType.float, weights: "inner" };

export class GraphBuilder {
  readonly settings: GraphSettings;
  readonly #outer: GraphBuilder | undefined;
  readonly #nodes: NodeProto[] = [];
  readonly #initializers = new Map<string, TensorProto>();
  readonly #sparse = new Map<string, SparseTensorProto>();
  readonly #inputs: ValueInfoProto[] = [];
  readonly #outputs: ValueInfoProto[] = [];
  /** Weights in fp32 and constants that this graph has already. */
  readonly #known = new Map<string, Value>();
  /** Shared with the branches: ONNX forbids a name of an outer graph in an inner one. */
  readonly #counter: { next: number };
  /** Names of the weights that are fed to the graph instead of read from a file; shared with the branches. */
  readonly #parameters: Set<string>;

  constructor(settings: GraphSettings = cpuSettings, outer?: GraphBuilder) {
    this.settings = settings;
    this.#outer = outer;
    this.#counter = outer === undefined ? { next: 0 } : outer.#counter;
    this.#parameters = outer === undefined ? new Set() : outer.#parameters;
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

  /** Adds a node with one output and gives the output. */
  node(opType: string, inputs: Value[], attributes: Attributes = {}, output?: string): Value {
    return this.nodes(opType, inputs, attributes, [output ?? this.#fresh(opType)])[0] as Value;
  }

  /** Adds a node of ONNX Runtime's own operator set. */
  contrib(opType: string, inputs: Value[], attributes: Attributes = {}): Value {
    return this.nodes(opType, inputs, attributes, [this.#fresh(opType)], contribDomain)[0] as Value;
  }

  /** Adds a node with several outputs: their names, or how many. */
  nodes(opType: string, inputs: Value[], attributes: Attributes, outputs: string[] | number, domain = ""): Value[] {
    const names = typeof outputs === "number" ? Array.from({ length: outputs }, () => this.#fresh(opType)) : outputs;
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
   * `If` with one output for each value that the branches give. A branch may read tensors of this graph; weights that
   * only a branch needs are best made inside it, where ONNX Runtime prepacks them.
   */
  branch(condition: Value, outputs: number | (() => number), then: BranchBody, otherwise: BranchBody): Value[] {
    const branches = [then, otherwise].map((body, index) => {
      const name = index === 0 ? "then" : "else";
      const inner = new GraphBuilder(this.settings, this);
      for (const value of body(inner)) {
        const output = inner.node("Identity", [value]);
        inner.#outputs.push(valueInfo(output, undefined, undefined));
      }
      return [name, inner.#graph(name)] as const;
    });
    const attributes = Object.fromEntries(branches.map(([name, graph]) => [`${name}_branch`, { graph }]));
    return this.nodes("If", [condition], attributes, typeof outputs === "number" ? outputs : outputs());
  }

  /**
   * `If` whose outputs are counted once its first branch is written.
   * @param otherwise values of this graph, as many as are asked for
   */
  branchOf(condition: Value, then: BranchBody, otherwise: (count: number) => Value[]): Value[] {
    let count = 0;
    const counted: BranchBody = (inside) => {
      const values = then(inside);
      count = values.length;
      return values;
    };
    return this.branch(
      condition,
      () => count,
      counted,
      () => otherwise(count),
    );
  }

  /** `If` with one output. */
  either(condition: Value, then: (inside: GraphBuilder) => Value, otherwise: (inside: GraphBuilder) => Value): Value {
    return this.branch(
      condition,
      1,
      (inside) => [then(inside)],
      (inside) => [otherwise(inside)],
    )[0] as Value;
  }

  /**
   * `Loop` over `trips` iterations without state: what `body` gives of each iteration is stacked along a new first axis.
   * The body's outputs have to keep their shapes from one iteration to the next.
   */
  loop(trips: Value, outputs: number, body: (iteration: GraphBuilder, index: Value) => Value[]): Value[] {
    const inner = new GraphBuilder(this.settings, this);
    const index = inner.input(this.#fresh("iteration"), OnnxType.int64, []);
    const goOn = inner.input(this.#fresh("condition"), OnnxType.bool, []);
    for (const value of [goOn, ...body(inner, index)]) {
      inner.#outputs.push(valueInfo(inner.node("Identity", [value]), undefined, undefined));
    }
    return this.nodes("Loop", [trips, ""], { body: { graph: inner.#graph("body") } }, outputs);
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

  /** A float scalar, or a vector where a list is given. */
  float(values: number | Float32Array): Value {
    return typeof values === "number"
      ? this.#constant(OnnxType.float, [], Float32Array.of(values))
      : this.#constant(OnnxType.float, [values.length], values);
  }

  /** A scalar in the graph's precision. */
  scalar(value: number): Value {
    const key = `scalar ${value}`;
    const known = this.#known.get(key) ?? this.fromFloat(this.float(value));
    this.#known.set(key, known);
    return known;
  }

  /** A float tensor in the graph's precision. */
  fromFloat(x: Value): Value {
    const { precision } = this.settings;
    return precision === OnnxType.float ? x : this.cast(x, precision);
  }

  /** A tensor of the graph's precision as float32. */
  toFloat(x: Value): Value {
    return this.settings.precision === OnnxType.float ? x : this.cast(x, OnnxType.float);
  }

  /** A float in the graph's precision that no score reaches; finite, so that a row without visible keys stays free of NaN. */
  lowest(): Value {
    return this.scalar(this.settings.precision === OnnxType.float ? -1e30 : -65504);
  }

  /** The number of every pattern of 16 bits that is a bfloat16, float `[65536]`. */
  bfloat16Numbers(): Value {
    if (this.#outer !== undefined) return this.#outer.bfloat16Numbers();
    const bits = Uint32Array.from({ length: 2 ** 16 }, (_, word) => word * 2 ** 16);
    return this.#constant(OnnxType.float, [bits.length], new Float32Array(bits.buffer));
  }

  /** A float tensor without elements. */
  empty(shape: number[]): Value {
    return this.#constant(OnnxType.float, shape, new Float32Array());
  }

  /** A weight as it is stored, in its own dtype. */
  stored(weight: Weight): Value {
    if (this.settings.weights === "outer" && this.#outer !== undefined) return this.#outer.stored(weight);
    const { name } = weight;
    if (!this.#initializers.has(name)) {
      const type = storedType(weight.dtype) as OnnxType;
      this.#initializers.set(name, external(name, type, weight.shape, weight));
    }
    return name;
  }

  /**
   * Weights of one dtype as they are stored, one after the other in rows of `width` elements, `[rows, width]`. What lies together in
   * a file is one tensor of the graph; where there are several, ONNX Runtime joins them when it loads the graph.
   */
  storedTogether(weights: readonly Weight[], width: number): { rows: Value; firstRow: (weight: Weight) => number } {
    if (this.settings.weights === "outer" && this.#outer !== undefined)
      return this.#outer.storedTogether(weights, width);
    const size = (weight: Weight) => weight.shape.reduce((product, edge) => product * edge, 1) / width;
    const inOrder = [...weights].sort((a, b) => a.location.localeCompare(b.location) || a.offset - b.offset);
    const firstRows = new Map<Weight, number>();
    const runs: { first: Weight; rows: number; length: number }[] = [];
    let rows = 0;
    for (const weight of inOrder) {
      const run = runs.at(-1);
      const follows = run?.first.location === weight.location && run.first.offset + run.length === weight.offset;
      if (run === undefined || !follows) runs.push({ first: weight, rows: size(weight), length: weight.length });
      else {
        run.rows += size(weight);
        run.length += weight.length;
      }
      firstRows.set(weight, rows);
      rows += size(weight);
    }
    const key = `together ${inOrder[0]?.name} ${width}`;
    let joined = this.#known.get(key);
    if (joined === undefined) {
      const parts = runs.map(({ first, rows, length }) => {
        const name = `${first.name} and what follows`;
        const { location, offset } = first;
        const type = storedType(first.dtype) as OnnxType;
        this.#initializers.set(name, external(name, type, [rows, width], { location, offset, length }));
        return name;
      });
      joined = parts.length === 1 ? (parts[0] as Value) : this.node("Concat", parts, { axis: 0 });
      this.#known.set(key, joined);
    }
    return { rows: joined, firstRow: (weight) => firstRows.get(weight) as number };
  }

  /**
   * A float16 tensor that lives as long as the session, in the outermost graph: what kernels write into it is there in the
   * next run. It begins as zeros, but for its first element, whose bits are `fill`. Views of it need shapes that are not
   * constant, or ONNX Runtime would fold them into copies.
   * @param fill differs from that of any other state, so that no two are taken for one
   */
  state(name: string, shape: number[], fill: number): Value {
    if (this.#outer !== undefined) return this.#outer.state(name, shape, fill);
    if (this.#sparse.has(name)) return name;
    // The file holds one element: ONNX Runtime makes the others when it loads the graph.
    const bytes = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const values = { name, dims: [1n], dataType: OnnxType.float16, rawData: bytes(Uint16Array.of(fill)) };
    const indices = {
      name: `${name} indices`,
      dims: [1n],
      dataType: OnnxType.int64,
      rawData: bytes(BigInt64Array.of(0n)),
    };
    this.#sparse.set(
      name,
      create(SparseTensorProtoSchema, {
        values: create(TensorProtoSchema, values),
        indices: create(TensorProtoSchema, indices),
        dims: shape.map(BigInt),
      }),
    );
    return name;
  }

  /** Makes a weight an input of the graph, in float32, under the weight's name: one that is being trained. */
  parameter(weight: Weight): Value {
    this.#parameters.add(weight.name);
    return this.input(weight.name, OnnxType.float, weight.shape);
  }

  /** A weight in the graph's precision, or in another one; dequantised where it carries block scales. */
  weight(weight: Weight, precision: GraphSettings["precision"] = this.settings.precision): Value {
    if (this.#parameters.has(weight.name)) {
      return precision === OnnxType.float ? weight.name : this.cast(weight.name, precision);
    }
    if (this.settings.weights === "outer" && this.#outer !== undefined) return this.#outer.weight(weight, precision);
    const key = `${weight.name} ${precision}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const scaled = this.#dequantised(weight, precision);
    this.#known.set(key, scaled);
    return scaled;
  }

  /**
   * A tensor made of weights alone, such as one cut out of another: made once under its name, where weights are made.
   * ONNX Runtime folds it when it loads the graph.
   */
  derived(name: string, make: (graph: GraphBuilder) => Value): Value {
    if (this.settings.weights === "outer" && this.#outer !== undefined) return this.#outer.derived(name, make);
    const known = this.#known.get(`derived ${name}`) ?? make(this);
    this.#known.set(`derived ${name}`, known);
    return known;
  }

  /** `x W^T (+ b)`: Hugging Face stores linear weights as `[out, in]`. */
  linear(x: Value, weight: Weight, bias?: Weight, precision = this.settings.precision): Value {
    if (this.settings.weights === "outer") {
      // A GPU transposes as it multiplies; a transposed copy would only take time to fold.
      const inputs = [x, this.weight(weight, precision), ...(bias === undefined ? [] : [this.weight(bias, precision)])];
      return this.node("Gemm", inputs, { transB: 1 });
    }
    const transposed = this.derived(`${weight.name} ${precision} transposed`, (graph) =>
      graph.node("Transpose", [graph.weight(weight, precision)], { perm: [1, 0] }),
    );
    const product = this.node("MatMul", [x, transposed]);
    return bias === undefined ? product : this.node("Add", [product, this.weight(bias, precision)]);
  }

  /**
   * `factor x W^T`, float32. On a GPU the factor is folded into the weight: a kernel less to launch, which shows where one
   * token is decoded. On a CPU it is applied to the product, as in transformers.
   */
  scaledLinear(x: Value, weight: Weight, factor: number): Value {
    if (this.settings.weights === "inner") {
      return this.node("Mul", [this.linear(x, weight, undefined, OnnxType.float), this.float(factor)]);
    }
    const scaled = this.derived(`${weight.name} scaled`, (outer) =>
      outer.node("Mul", [outer.weight(weight, OnnxType.float), outer.float(factor)]),
    );
    return this.node("Gemm", [x, scaled], { transB: 1 });
  }

  /** RMSNorm over the last axis (HF: GlmMoeDsaRMSNorm, DeepseekV32RMSNorm). */
  rmsNorm(x: Value, weight: Weight, eps: number): Value {
    return this.node("SimplifiedLayerNormalization", [x, this.weight(weight)], {
      axis: -1,
      epsilon: { float: eps },
      stash_type: 1,
    });
  }

  /** RMSNorm of `x + skip` in one operator: normed rows, and the sum. */
  skipNorm(x: Value, skip: Value, weight: Weight, eps: number): [normed: Value, sum: Value] {
    const outputs = [this.#fresh("normed"), "", "", this.#fresh("sum")];
    const inputs = [x, skip, this.weight(weight)];
    this.nodes("SkipSimplifiedLayerNormalization", inputs, { epsilon: { float: eps } }, outputs, contribDomain);
    return [outputs[0] as Value, outputs[3] as Value];
  }

  /** Computed in float32, as gates are in transformers. */
  sigmoid(x: Value): Value {
    return this.fromFloat(this.node("Sigmoid", [this.toFloat(x)]));
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

  #dequantised(weight: Weight, precision: GraphSettings["precision"]): Value {
    const stored = this.stored(weight);
    if (Object.hasOwn(exponentTypes, weight.dtype)) {
      // A table is exact on every device, which powers need not be. The largest exponent is NaN.
      const powers = Float32Array.from({ length: 256 }, (_, i) => (i === 255 ? Number.NaN : 2 ** (i - 127)));
      const values = this.node("Gather", [this.float(powers), this.cast(stored, OnnxType.int32)], { axis: 0 });
      return precision === OnnxType.float ? values : this.cast(values, precision);
    }
    if (weight.scale === undefined) {
      return weightTypes[weight.dtype] === precision ? stored : this.cast(stored, precision);
    }
    // Scales are applied in fp32: a product of FP8 and scale need not be a float16.
    const scales = this.#blockScale(weight, weight.scale);
    const product = this.node("Mul", [this.cast(stored, OnnxType.float), scales]);
    return precision === OnnxType.float ? product : this.cast(product, precision);
  }

  /** Block scales spread over the weight: row r, column c reads block (r / rows, c / columns). */
  #blockScale(weight: Weight, { weight: scale, rows, columns, firstRow }: BlockScale): Value {
    const [height = 0, width = 0] = weight.shape;
    const index = (size: number, edge: number, first: number) =>
      this.int(Array.from({ length: size }, (_, i) => Math.floor((i + first) / edge)));
    const scales = this.weight(scale, OnnxType.float);
    const [across, along] = scale.shape;
    // A single scale is spread by the multiplication.
    const byRow = across === 1 ? scales : this.node("Gather", [scales, index(height, rows, firstRow)], { axis: 0 });
    return along === 1 ? byRow : this.node("Gather", [byRow, index(width, columns, 0)], { axis: 1 });
  }

  #constant(dataType: OnnxType, shape: number[], data: ArrayBufferView): Value {
    const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const key = `constant ${dataType} [${shape.join()}] ${hashBytes(rawData)}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const name = this.#fresh("constant");
    this.#initializers.set(name, create(TensorProtoSchema, { name, dims: shape.map(BigInt), dataType, rawData }));
    this.#known.set(key, name);
    return name;
  }

  #fresh(opType: string): string {
    return `${opType}_${this.#counter.next++}`;
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

/** Fills one branch of an `If` and gives its outputs. */
export type BranchBody = (branch: GraphBuilder) => Value[];

export function encodeModel(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}
