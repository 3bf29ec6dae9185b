/**
 * Binds the tensors of a checkpoint to their places in the model: every name and shape is checked here, once, so that
 * the graphs can be written without looking at the files again. Tensors of MTP layers (number >= num_hidden_layers)
 * are left alone.
 */
import { InputError } from "../base/errors.ts";
import type { LayerBinder } from "./architectures/architecture.ts";
import { architectures, type ModelType } from "./architectures/architectures.ts";
import type { DsaConfig } from "./config/model-config.ts";
import { elementsIn, weightTypes } from "./dtype.ts";
import { unreadFormat } from "./quantization.ts";
import { expectedScales, findScales, scaleGrid } from "./scales.ts";
import type { CheckpointTensor, CheckpointTensors } from "./shards.ts";
import { byModelName, foreignLayout, layerOf } from "./tensor-names.ts";
import type { BlockScale, MlpWeights, ModelWeights, Weight } from "./weights.ts";

/**
 * @throws InputError naming the tensor and file for a missing tensor, a wrong shape, a dtype that no graph can read,
 *   or an FP8 weight without its scales
 */
export function bindWeights(config: DsaConfig, checkpoint: CheckpointTensors): ModelWeights {
  return bindModel(new Binder(config, checkpoint), config, checkpoint);
}

/** Names and shapes of the tensors that a checkpoint of this config holds, in order; experts one by one. */
export function requiredTensors(config: DsaConfig): { name: string; shape: number[] }[] {
  const listing = new Listing(config, noTensors);
  bindModel(listing, config, noTensors);
  return listing.tensors;
}

/**
 * The weights of a checkpoint of this config as its releases store them, in no file: matrices in FP8 with their scales where
 * config.json says so, everything else in BF16.
 */
export function declaredWeights(config: DsaConfig): ModelWeights {
  return bindModel(new Declared(config, noTensors), config, noTensors);
}

const noTensors: CheckpointTensors = {
  folder: "",
  files: [],
  bytes: 0,
  tensors: new Map(),
  absent: new Map(),
  notes: [],
  places: { folder: "", files: new Map() },
};

function bindModel(binder: Binder, config: DsaConfig, { folder, files, bytes }: CheckpointTensors): ModelWeights {
  const { vocabSize, hiddenSize } = config;
  const vocabulary = [vocabSize, hiddenSize];
  const names = { embedding: "model.embed_tokens.weight", head: "lm_head.weight" };
  // As in transformers: tied weights are whichever of the two is stored, and two that are both stored are not tied.
  const tied = config.tieWordEmbeddings && !(binder.has(names.head) && binder.has(names.embedding));
  const embedding = binder.weight(tied && binder.has(names.head) ? names.head : names.embedding, vocabulary);
  return {
    folder,
    files,
    bytes,
    embedding,
    finalNorm: binder.weight("model.norm.weight", [hiddenSize]),
    lmHead: tied ? embedding : binder.weight(names.head, vocabulary),
    layers: Array.from({ length: config.numHiddenLayers }, (_, layer) =>
      architectures[config.modelType as ModelType].layer(binder, config, layer),
    ),
    leftoverIndexers: [...config.indexerLayers].flatMap((letter, layer) =>
      letter === "S" && binder.has(`model.layers.${layer}.self_attn.indexer.wq_b.weight`) ? [layer] : [],
    ),
  };
}

class Binder implements LayerBinder {
  readonly #config: DsaConfig;
  readonly #checkpoint: CheckpointTensors;
  /** By transformers' names. */
  readonly #tensors: ReadonlyMap<string, CheckpointTensor>;

  constructor(config: DsaConfig, checkpoint: CheckpointTensors) {
    this.#config = config;
    this.#checkpoint = checkpoint;
    this.#tensors = byModelName(checkpoint.tensors);
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** A weight of this shape: a vector, a matrix, or matrices one after the other (experts, heads). */
  weight(name: string, shape: number[]): Weight {
    const tensor = this.#tensor(name);
    // A packed format has other dtypes and shapes: said first, it spares a search for what is wrong with the sizes.
    if (weightTypes[tensor.dtype] === undefined) {
      throw (
        this.#unreadFormat() ??
        new InputError(
          `${this.#where(tensor)} has dtype ${tensor.dtype}; weights may be ${Object.keys(weightTypes).join(", ")}`,
        )
      );
    }
    if (!sameShape(tensor.shape, shape)) {
      const turned = shape.length === 3 && sameShape(tensor.shape, [shape[0], shape[2], shape[1]]);
      throw new InputError(
        `${this.#where(tensor)} has shape [${tensor.shape.join(", ")}], config.json makes it [${shape.join(", ")}]`,
        turned ? { hint: "these experts are stored transposed, a layout that is not read" } : {},
      );
    }
    const scale = tensor.dtype === "F8_E4M3" ? this.#scale(name, tensor) : undefined;
    return scale === undefined ? { ...tensor } : { ...tensor, scale };
  }

  mlp(at: string, intermediate: number): MlpWeights {
    const { hiddenSize } = this.#config;
    return {
      gate: this.weight(`${at}.gate_proj.weight`, [intermediate, hiddenSize]),
      up: this.weight(`${at}.up_proj.weight`, [intermediate, hiddenSize]),
      down: this.weight(`${at}.down_proj.weight`, [hiddenSize, intermediate]),
    };
  }

  /**
   * Experts one by one, or stacked: `experts` (transformers 5) or `switch_mlp` (MLX), gate and up apart (`[E, I, D]`) or
   * fused (`[E, 2 * I, D]`: gate rows, then up), down `[E, D, I]`. Slices of all of them are contiguous.
   */
  experts(at: string): MlpWeights[] {
    const { nRoutedExperts: count, moeIntermediateSize: inner, hiddenSize } = this.#config;
    const stacked = (part: string): string | undefined =>
      ["experts", "switch_mlp"]
        .flatMap((group) => [`${at}.${group}.${part}`, `${at}.${group}.${part}.weight`])
        .find((name) => this.has(name));
    const fused = stacked("gate_up_proj");
    const first = fused ?? stacked("gate_proj");
    if (first === undefined) return Array.from({ length: count }, (_, i) => this.mlp(`${at}.experts.${i}`, inner));
    const beside = (part: string): string => stacked(part) ?? first.replace(/(gate_up|gate)_proj/, part);
    const down = this.weight(beside("down_proj"), [count, hiddenSize, inner]);
    if (fused !== undefined) {
      const gateUp = this.weight(fused, [count, 2 * inner, hiddenSize]);
      return Array.from({ length: count }, (_, i) => {
        const both = matrix(gateUp, i);
        return { gate: rowsOf(both, 0, inner), up: rowsOf(both, inner, inner), down: matrix(down, i) };
      });
    }
    const gate = this.weight(first, [count, inner, hiddenSize]);
    const up = this.weight(beside("up_proj"), [count, inner, hiddenSize]);
    return Array.from({ length: count }, (_, i) => ({
      gate: matrix(gate, i),
      up: matrix(up, i),
      down: matrix(down, i),
    }));
  }

  #tensor(name: string): CheckpointTensor {
    const tensor = this.#tensors.get(name);
    if (tensor !== undefined) return tensor;
    const { folder, absent, tensors } = this.#checkpoint;
    const promised = absent.get(name);
    if (promised !== undefined) throw promised;
    const unread = this.#unreadFormat();
    if (unread !== undefined) throw unread;
    const layout = foreignLayout(tensors.keys());
    if (layout !== undefined) {
      throw new InputError(`"${folder}" lacks tensor "${name}": its tensors have ${layout.words}`, {
        hint: layout.hint,
      });
    }
    const hint = this.#lackingHint(name);
    throw new InputError(`"${folder}" lacks tensor "${name}"`, { hint });
  }

  #lackingHint(name: string): string | undefined {
    if (name.includes(".indexer."))
      return `if layer ${layerOf(name)} was trained Shared, config.json must say so (indexer_types)`;
    if (name === "lm_head.weight") return "if the head is the embedding, config.json must say so (tie_word_embeddings)";
    const stored = [...this.#tensors.keys()].flatMap((other) => layerOf(other) ?? []);
    const layers = stored.reduce((most, layer) => Math.max(most, layer + 1), 0);
    const layer = layerOf(name);
    if (layer === undefined || layer < layers) return undefined;
    return `the checkpoint holds ${layers} layers, config.json says ${this.#config.numHiddenLayers} (num_hidden_layers)`;
  }

  #unreadFormat(): InputError | undefined {
    const { folder, tensors } = this.#checkpoint;
    return unreadFormat(`"${folder}"`, this.#config.quantization, tensors.values());
  }

  /** FP8 is recognised by its scale tensor: lists of unquantised modules in config.json name modules that do not exist. */
  #scale(name: string, tensor: CheckpointTensor): BlockScale {
    const { quantization } = this.#config;
    const where = (found: CheckpointTensor) => this.#where(found);
    const scale = findScales(name, (wanted) => this.#tensors.get(wanted), where, tensor);
    const [height = 1, width = 1] = tensor.shape.slice(-2);
    const matrices = tensor.shape.slice(0, -2);
    // Scales of stacked matrices are stacked as well, unless one is for all of them.
    const isStacked = matrices.length > 0 && scale.shape.length > 0 && scale.shape[0] === matrices[0];
    const shape = isStacked ? scale.shape.slice(1) : scale.shape;
    const grid = tensor.shape.length < 2 ? undefined : scaleGrid(shape, [height, width], quantization, scale.dtype);
    if (grid === undefined || (matrices.length > 0 && !isStacked && grid.across * grid.along > 1)) {
      throw new InputError(
        `${this.#where(scale)} has shape [${scale.shape.join(", ")}]; ${expectedScales([height, width], quantization)}${matrices.length === 0 ? "" : `, ${matrices[0]} times`}`,
      );
    }
    const { across, along, rows, columns } = grid;
    const stack = isStacked ? matrices : [];
    return { weight: { ...scale, shape: [...stack, across, along] }, rows, columns, firstRow: 0 };
  }

  #where(tensor: CheckpointTensor): string {
    return `"${this.#checkpoint.folder}/${tensor.file}", tensor "${tensor.name}"`;
  }
}

/** Binds to nothing and writes down what it was asked for. */
class Listing extends Binder {
  readonly tensors: { name: string; shape: number[] }[] = [];

  override weight(name: string, shape: number[]): Weight {
    this.tensors.push({ name, shape });
    return { name, dtype: "F32", shape, file: "", location: "", offset: 0, length: 0 };
  }
}

/** Matrices that FP8 releases quantise. */
const quantisedMatrix = /(_proj|wq_b|\.wk)\.weight$/;
/** Of an FP8 matrix: a float32 scale for each block of 128 x 128 besides one byte an element. */
const fp8Bytes = 1 + 4 / 128 ** 2;

/** Binds to nothing and takes every weight to be stored as config.json suggests. */
class Declared extends Binder {
  readonly #isFp8: boolean;

  constructor(config: DsaConfig, checkpoint: CheckpointTensors) {
    super(config, checkpoint);
    this.#isFp8 = config.quantization?.isFp8 === true;
  }

  override weight(name: string, shape: number[]): Weight {
    const isFp8 = this.#isFp8 && quantisedMatrix.test(name) && !name.endsWith("weights_proj.weight");
    const elements = elementsIn(shape);
    const length = Math.ceil(elements * (isFp8 ? fp8Bytes : 2));
    return { name, dtype: isFp8 ? "F8_E4M3" : "BF16", shape, file: "", location: "", offset: 0, length };
  }
}

/** One of the matrices of a stack, with its scales. */
function matrix(stack: Weight, index: number): Weight {
  const [count = 1, ...shape] = stack.shape;
  const length = stack.length / count;
  const part = { ...stack, name: `${stack.name}[${index}]`, shape, offset: stack.offset + index * length, length };
  const { scale } = stack;
  if (scale === undefined || scale.weight.shape.length === 2) return part;
  return { ...part, scale: { ...scale, weight: matrix(scale.weight, index) } };
}

/** Rows of a matrix, of its scales the place where they begin. */
function rowsOf(whole: Weight, first: number, count: number): Weight {
  const [height = 1, width = 1] = whole.shape;
  const bytes = whole.length / height;
  return {
    ...whole,
    name: `${whole.name}[${first}:${first + count}]`,
    shape: [count, width],
    offset: whole.offset + first * bytes,
    length: count * bytes,
    ...(whole.scale === undefined ? {} : { scale: { ...whole.scale, firstRow: first } }),
  };
}

function sameShape(found: readonly number[], wanted: readonly (number | undefined)[]): boolean {
  return found.length === wanted.length && found.every((size, axis) => size === wanted[axis]);
}
