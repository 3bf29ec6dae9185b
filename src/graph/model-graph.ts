/**
 * The graph of a model: what GraphBuilder writes, in the model's precision, over the model's weights. Weights stay where they
 * are: an initializer names a byte range of a safetensors file, and the Cast and Transpose after it are folded by ONNX Runtime
 * when the graph is loaded.
 */
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { exponentTypes, OnnxType, storedType, weightTypes } from "../checkpoint/dtype.ts";
import { adjacentWeights, type BlockScale, elementCount, storedBytes, type Weight } from "../checkpoint/weights.ts";
import { GraphBuilder, type Value } from "./graph-builder.ts";
import { external, zerosBut } from "./graph-parts.ts";

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

export class ModelGraph extends GraphBuilder {
  readonly config: DsaConfig;
  readonly settings: GraphSettings;
  readonly #outer: ModelGraph | undefined;
  /** Names of the weights that are fed to the graph instead of read from a file; shared with the branches. */
  readonly #parameters: Set<string>;

  constructor(config: DsaConfig, settings: GraphSettings = cpuSettings, outer?: ModelGraph) {
    super(outer);
    this.config = config;
    this.settings = settings;
    this.#outer = outer;
    this.#parameters = outer === undefined ? new Set() : outer.#parameters;
  }

  protected override inner(): this {
    return new ModelGraph(this.config, this.settings, this) as this;
  }

  /** The graph that weights are made in: this one, or the outermost. */
  get #home(): ModelGraph {
    return this.settings.weights === "outer" && this.#outer !== undefined ? this.#outer.#home : this;
  }

  /** A scalar in the graph's precision. */
  scalar(value: number): Value {
    return this.once(`scalar ${value}`, () => this.fromFloat(this.float(value)));
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

  /** A weight as it is stored, in its own dtype. */
  stored(weight: Weight): Value {
    return this.#home.initializer(external(weight.name, storedType(weight.dtype) as OnnxType, weight.shape, weight));
  }

  /**
   * Weights of one dtype as they are stored, one after the other in rows of `width` elements, `[rows, width]`. What lies together in
   * a file is one tensor of the graph; where there are several, ONNX Runtime joins them when it loads the graph.
   */
  storedTogether(weights: readonly Weight[], width: number): { rows: Value; firstRow: (weight: Weight) => number } {
    const runs = adjacentWeights(weights);
    const firstRows = new Map<Weight, number>();
    let count = 0;
    for (const weight of runs.flat()) {
      firstRows.set(weight, count);
      count += elementCount([weight]) / width;
    }
    const home = this.#home;
    const rows = home.once(`together ${runs[0]?.[0].name} ${width}`, () => {
      const parts = runs.map((run) => {
        const [{ name, dtype, location, offset }] = run;
        const shape = [elementCount(run) / width, width];
        const place = { location, offset, length: storedBytes(run) };
        return home.initializer(external(`${name} and what follows`, storedType(dtype) as OnnxType, shape, place));
      });
      return parts.length === 1 ? (parts[0] as Value) : home.node("Concat", parts, { axis: 0 });
    });
    return { rows, firstRow: (weight) => firstRows.get(weight) as number };
  }

  /**
   * A float16 tensor that lives as long as the session, in the outermost graph: what kernels write into it is there in the
   * next run. It begins as zeros, but for its first element, whose bits are `fill`. Views of it need shapes that are not
   * constant, or ONNX Runtime would fold them into copies.
   * @param fill differs from that of any other state, so that no two are taken for one
   */
  state(name: string, shape: number[], fill: number): Value {
    if (this.#outer !== undefined) return this.#outer.state(name, shape, fill);
    return this.sparseInitializer(name, zerosBut(name, shape, fill));
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
    const home = this.#home;
    return home.once(`${weight.name} ${precision}`, () => home.#dequantised(weight, precision));
  }

  /**
   * A tensor made of weights alone, such as one cut out of another: made once under its name, where weights are made.
   * ONNX Runtime folds it when it loads the graph.
   */
  derived(name: string, make: (graph: ModelGraph) => Value): Value {
    const home = this.#home;
    return home.once(`derived ${name}`, () => make(home));
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
    const [normed, sum] = [this.fresh("normed"), this.fresh("sum")];
    const inputs = [x, skip, this.weight(weight)];
    const attributes = { epsilon: { float: eps } };
    this.contrib("SkipSimplifiedLayerNormalization", inputs, attributes, [normed, "", "", sum]);
    return [normed, sum];
  }

  /** Computed in float32, as gates are in transformers. */
  sigmoid(x: Value): Value {
    return this.fromFloat(this.node("Sigmoid", [this.toFloat(x)]));
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
}
