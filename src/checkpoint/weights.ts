/**
 * Binds the tensors of a checkpoint to their places in the model: every name and shape is checked here, once, so that
 * the graphs can be written without looking at the files again. Tensors of MTP layers (number >= num_hidden_layers)
 * are left alone.
 */
import { InputError } from "../base/errors.ts";
import { isFull, type Pattern } from "../pattern/pattern.ts";
import { weightTypes } from "./dtype.ts";
import type { DsaConfig } from "./model-config.ts";
import type { CheckpointTensor, CheckpointTensors } from "./shards.ts";

/** A weight and where its bytes lie; an FP8 weight carries its block scales. */
export interface Weight {
  name: string;
  dtype: string;
  shape: number[];
  file: string;
  /** Where that file really lies, links followed: see `CheckpointTensors.places`. */
  location: string;
  offset: number;
  length: number;
  scale?: BlockScale;
}

/** FP8 scales: one for each block of `rows` x `columns`, the blocks at the lower and right edge partial. */
export interface BlockScale {
  weight: Weight;
  rows: number;
  columns: number;
}

/** SwiGLU: `down(silu(gate x) * up x)`. */
export interface MlpWeights {
  gate: Weight;
  up: Weight;
  down: Weight;
}

export interface IndexerWeights {
  wqB: Weight;
  wk: Weight;
  kNorm: Weight;
  kNormBias: Weight;
  weightsProj: Weight;
}

export interface RoutedWeights {
  router: Weight;
  correctionBias: Weight;
  experts: MlpWeights[];
  shared: MlpWeights | undefined;
}

export interface LayerWeights {
  inputNorm: Weight;
  postAttentionNorm: Weight;
  qA: Weight;
  qABias: Weight | undefined;
  qANorm: Weight;
  qB: Weight;
  kvA: Weight;
  kvABias: Weight | undefined;
  kvANorm: Weight;
  kvB: Weight;
  o: Weight;
  oBias: Weight | undefined;
  /** Absent where config.json makes this layer Shared, whatever the checkpoint holds. */
  indexer: IndexerWeights | undefined;
  mlp: MlpWeights | RoutedWeights;
}

export interface ModelWeights {
  folder: string;
  files: string[];
  bytes: number;
  embedding: Weight;
  finalNorm: Weight;
  lmHead: Weight;
  layers: LayerWeights[];
  /** Layers that config.json makes Shared although the checkpoint holds an indexer for them; transformers drops those. */
  leftoverIndexers: number[];
}

/** What the name of a tensor's FP8 scales ends in. */
const scaleSuffix = "_scale_inv";

export function isRouted(mlp: MlpWeights | RoutedWeights): mlp is RoutedWeights {
  return "router" in mlp;
}

/**
 * @throws InputError naming the tensor and file for a missing tensor, a wrong shape, a dtype that no graph can read,
 *   or an FP8 weight without its scales
 */
export function bindWeights(config: DsaConfig, checkpoint: CheckpointTensors): ModelWeights {
  return bindModel(new Binder(config, checkpoint), config, checkpoint);
}

/** Names and shapes of the tensors that a checkpoint of this config holds, in order; experts one by one. */
export function requiredTensors(config: DsaConfig): { name: string; shape: number[] }[] {
  const nothing = { folder: "", files: [], bytes: 0, tensors: new Map(), places: { folder: "", files: new Map() } };
  const listing = new Listing(config, nothing);
  bindModel(listing, config, nothing);
  return listing.tensors;
}

function bindModel(binder: Binder, config: DsaConfig, { folder, files, bytes }: CheckpointTensors): ModelWeights {
  const { vocabSize, hiddenSize } = config;
  const embedding = binder.weight("model.embed_tokens.weight", [vocabSize, hiddenSize]);
  return {
    folder,
    files,
    bytes,
    embedding,
    finalNorm: binder.weight("model.norm.weight", [hiddenSize]),
    lmHead: config.tieWordEmbeddings ? embedding : binder.weight("lm_head.weight", [vocabSize, hiddenSize]),
    layers: Array.from({ length: config.numHiddenLayers }, (_, layer) => bindLayer(binder, config, layer)),
    leftoverIndexers: [...config.indexerLayers].flatMap((letter, layer) =>
      letter === "S" && binder.has(`model.layers.${layer}.self_attn.indexer.wq_b.weight`) ? [layer] : [],
    ),
  };
}

/** Every distinct weight of the model, for streaming over the bytes that it really uses. */
export function listWeights(weights: ModelWeights): Weight[] {
  const found = new Map<string, Weight>();
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) for (const item of value) visit(item);
    else if (value !== null && typeof value === "object") {
      if ("offset" in value && "dtype" in value) found.set((value as Weight).name, value as Weight);
      for (const item of Object.values(value)) visit(item);
    }
  };
  visit([weights.embedding, weights.finalNorm, weights.lmHead, weights.layers]);
  return [...found.values()];
}

/** Elements of the weights that a pattern's graph holds: indexers of Shared layers are not in it. */
export function elementsOf(weights: ModelWeights, pattern: Pattern): number {
  const layers = weights.layers.map((layer, index) =>
    isFull(pattern, index) ? layer : { ...layer, indexer: undefined },
  );
  const held = listWeights({ ...weights, layers }).filter(({ name }) => !name.endsWith(scaleSuffix));
  return held.reduce((total, { shape }) => total + shape.reduce((product, size) => product * size, 1), 0);
}

function bindLayer(binder: Binder, config: DsaConfig, layer: number): LayerWeights {
  const at = `model.layers.${layer}`;
  const attention = `${at}.self_attn`;
  const { hiddenSize, qLoraRank, kvLoraRank, qkRopeHeadDim, numAttentionHeads: heads } = config;
  const qkHeadDim = config.qkNopeHeadDim + qkRopeHeadDim;
  const latent = kvLoraRank + qkRopeHeadDim;
  const bias = (name: string, size: number) =>
    config.attentionBias ? binder.weight(`${attention}.${name}.bias`, [size]) : undefined;
  return {
    inputNorm: binder.weight(`${at}.input_layernorm.weight`, [hiddenSize]),
    postAttentionNorm: binder.weight(`${at}.post_attention_layernorm.weight`, [hiddenSize]),
    qA: binder.weight(`${attention}.q_a_proj.weight`, [qLoraRank, hiddenSize]),
    qABias: bias("q_a_proj", qLoraRank),
    qANorm: binder.weight(`${attention}.q_a_layernorm.weight`, [qLoraRank]),
    qB: binder.weight(`${attention}.q_b_proj.weight`, [heads * qkHeadDim, qLoraRank]),
    kvA: binder.weight(`${attention}.kv_a_proj_with_mqa.weight`, [latent, hiddenSize]),
    kvABias: bias("kv_a_proj_with_mqa", latent),
    kvANorm: binder.weight(`${attention}.kv_a_layernorm.weight`, [kvLoraRank]),
    kvB: binder.weight(`${attention}.kv_b_proj.weight`, [heads * (config.qkNopeHeadDim + config.vHeadDim), kvLoraRank]),
    o: binder.weight(`${attention}.o_proj.weight`, [hiddenSize, heads * config.vHeadDim]),
    oBias: bias("o_proj", hiddenSize),
    indexer: isFull(config.indexerLayers, layer) ? bindIndexer(binder, config, `${attention}.indexer`) : undefined,
    mlp: config.sparseLayers[layer]
      ? bindRouted(binder, config, `${at}.mlp`)
      : binder.mlp(`${at}.mlp`, config.intermediateSize),
  };
}

function bindIndexer(binder: Binder, config: DsaConfig, at: string): IndexerWeights {
  const { indexNHeads, indexHeadDim, hiddenSize } = config;
  return {
    wqB: binder.weight(`${at}.wq_b.weight`, [indexNHeads * indexHeadDim, config.qLoraRank]),
    wk: binder.weight(`${at}.wk.weight`, [indexHeadDim, hiddenSize]),
    kNorm: binder.weight(`${at}.k_norm.weight`, [indexHeadDim]),
    kNormBias: binder.weight(`${at}.k_norm.bias`, [indexHeadDim]),
    weightsProj: binder.weight(`${at}.weights_proj.weight`, [indexNHeads, hiddenSize]),
  };
}

function bindRouted(binder: Binder, config: DsaConfig, at: string): RoutedWeights {
  const { nRoutedExperts, moeIntermediateSize, nSharedExperts, hiddenSize } = config;
  const fused = binder.has(`${at}.experts.gate_up_proj`);
  return {
    router: binder.weight(`${at}.gate.weight`, [nRoutedExperts, hiddenSize]),
    correctionBias: binder.weight(`${at}.gate.e_score_correction_bias`, [nRoutedExperts]),
    experts: Array.from({ length: nRoutedExperts }, (_, expert) =>
      fused ? binder.fusedExpert(`${at}.experts`, expert) : binder.mlp(`${at}.experts.${expert}`, moeIntermediateSize),
    ),
    shared: nSharedExperts > 0 ? binder.mlp(`${at}.shared_experts`, moeIntermediateSize * nSharedExperts) : undefined,
  };
}

class Binder {
  readonly #config: DsaConfig;
  readonly #checkpoint: CheckpointTensors;

  constructor(config: DsaConfig, checkpoint: CheckpointTensors) {
    this.#config = config;
    this.#checkpoint = checkpoint;
  }

  has(name: string): boolean {
    return this.#checkpoint.tensors.has(name);
  }

  weight(name: string, shape: number[]): Weight {
    const tensor = this.#tensor(name);
    if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
      throw new InputError(
        `${this.#where(tensor)} has shape [${tensor.shape.join(", ")}], config.json makes it [${shape.join(", ")}]`,
      );
    }
    if (weightTypes[tensor.dtype] === undefined) {
      throw new InputError(
        `${this.#where(tensor)} has dtype ${tensor.dtype}; weights may be ${Object.keys(weightTypes).join(", ")}`,
      );
    }
    const scale = this.#scale(tensor);
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

  /** One expert inside the fused tensors `[E, 2 * I, D]` (gate rows, then up) and `[E, D, I]`: slices are contiguous. */
  fusedExpert(at: string, expert: number): MlpWeights {
    const { nRoutedExperts, moeIntermediateSize: intermediate, hiddenSize } = this.#config;
    const gateUp = this.weight(`${at}.gate_up_proj`, [nRoutedExperts, 2 * intermediate, hiddenSize]);
    const down = this.weight(`${at}.down_proj`, [nRoutedExperts, hiddenSize, intermediate]);
    return {
      gate: slice(gateUp, 2 * expert, 2 * nRoutedExperts, [intermediate, hiddenSize]),
      up: slice(gateUp, 2 * expert + 1, 2 * nRoutedExperts, [intermediate, hiddenSize]),
      down: slice(down, expert, nRoutedExperts, [hiddenSize, intermediate]),
    };
  }

  #tensor(name: string): CheckpointTensor {
    const tensor = this.#checkpoint.tensors.get(name);
    if (tensor !== undefined) return tensor;
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    const hint = name.includes(".indexer.")
      ? `if layer ${layer} was trained Shared, config.json must say so (indexer_types)`
      : undefined;
    throw new InputError(`"${this.#checkpoint.folder}" lacks tensor "${name}"`, hint === undefined ? {} : { hint });
  }

  /** FP8 is recognised by its scale tensor: lists of unquantised modules in config.json name modules that do not exist. */
  #scale(tensor: CheckpointTensor): BlockScale | undefined {
    if (tensor.dtype !== "F8_E4M3") return undefined;
    const scale = this.#checkpoint.tensors.get(`${tensor.name}${scaleSuffix}`);
    if (scale === undefined) {
      throw new InputError(`${this.#where(tensor)} is FP8 and has no "${tensor.name}${scaleSuffix}"`);
    }
    const [rows, columns] = this.#config.weightBlockSize;
    const [height = 0, width = 0] = tensor.shape;
    // 576 rows are five blocks of 128, the last of 64: the edge is the config's, never rows / blocks.
    const expected = [Math.ceil(height / rows), Math.ceil(width / columns)];
    if (tensor.shape.length !== 2 || scale.shape.join() !== expected.join()) {
      throw new InputError(
        `${this.#where(scale)} has shape [${scale.shape.join(", ")}]; blocks of ${rows} x ${columns} over [${tensor.shape.join(", ")}] make it [${expected.join(", ")}]`,
      );
    }
    if (scale.dtype !== "F32" && scale.dtype !== "BF16" && scale.dtype !== "F16") {
      throw new InputError(`${this.#where(scale)} has dtype ${scale.dtype}; scales may be F32, BF16 or F16`);
    }
    return { weight: { ...scale }, rows, columns };
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

function slice(weight: Weight, index: number, parts: number, shape: number[]): Weight {
  const length = weight.length / parts;
  return { ...weight, name: `${weight.name}[${index}]`, shape, offset: weight.offset + index * length, length };
}
