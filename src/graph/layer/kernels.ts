/**
 * Which of several equal formulations a provider runs well: the only place that decides it. Found by profiles and timings of
 * onnxruntime-node 1.30.0 on an H200 (docs/gpu.md) and on CPUs (docs/log.md), and the reason that a graph is built for one
 * provider.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { latentWidth } from "../exported/contract.ts";
import type { GraphSettings } from "../model-graph.ts";
import type { ExpertForm } from "./experts.ts";

export type Provider = "cpu" | "cuda" | "webgpu";

export interface Kernels {
  /**
   * Up to how many chunks of all layers together are written out; more are a `Loop`. A GPU waits for the host whenever a
   * body computes where its chunk begins; WebGPU has no kernel for loops, and would fetch every tensor from the device.
   */
  writtenOut: number;
  experts: ExpertForm;
  /** A product with a transposed matrix as one operator; two where it would fall back to the CPU. */
  fusedMatMul: boolean;
  /**
   * A sum and its norm as one operator. A CPU gains nothing from it, and its operator rounds otherwise: graphs of chunks keep
   * the bits of losses that journals hold.
   */
  skipNorm: boolean;
  /** Logarithms of softmax as one operator, without a second tensor of exponentials. */
  logSoftmax: boolean;
  /**
   * What products of index queries and keys, their relu and their sum over heads are made in; from there on scores are float32.
   * By its traffic this is the largest part of an indexer, and float16 halves it. Rounded so, 0.19% of the demo model's selected
   * keys are others than in float32, where float16 states alone change 0.11%; a search takes the same steps (docs/gpu.md).
   */
  indexProducts: "float16" | "float32";
  /**
   * How attention is told where the keys end: by `lengths`, by lengths and `offsets`, or by `slices` that end there. On
   * CUDA the first keeps cuDNN's kernel, which is for float16, and crashes the one that is taken without cuDNN or in float32.
   * WebGPU has neither.
   */
  keyBounds: "lengths" | "offsets" | "slices";
  /**
   * What a chunk need not have of its own is made at once: queries for all rows, keys of all heads in one product, ranks for
   * all layers, attention of the first `index_topk` rows without a bias. Pieces leave a large GPU half idle. In float16, where it
   * was measured.
   */
  atOnce: boolean;
  /** From so many rows on a larger chunk gains nothing, while its queries read more keys of their future. */
  chunkRows: number;
  /** Gathering one element of a latent row takes as long as this many multiply-adds of reading all keys. */
  gatherCost: number;
  /**
   * Bytes of latent rows that a sequence graph gathers at once: a chunk that selects more does it in blocks of rows. ONNX Runtime's
   * allocator takes a region of 2, 4, 8 GiB for a tensor of more than 1, 2, 4, and keeps it. Blocks of half as many take 1% longer.
   */
  mostGathered: number;
}

/** What else a choice of kernels depends on. */
export interface KernelSettings {
  /** Is attention in float16 on CUDA cuDNN's? It is if absent. */
  cudnn?: boolean;
  /** Are experts put together in every run, of what is stored? Otherwise it is done when the graph is loaded. */
  storedExperts?: boolean;
  /** `Kernels.mostGathered`, where it is not the usual one. */
  mostGathered?: number;
}

export function kernelsOf(
  provider: Provider,
  precision: GraphSettings["precision"],
  { cudnn = true, storedExperts = false, mostGathered = 2 ** 31 }: KernelSettings = {},
): Kernels {
  const half = precision === OnnxType.float16;
  return {
    writtenOut: { cpu: 0, cuda: half ? 256 : 64, webgpu: Number.POSITIVE_INFINITY }[provider],
    experts: provider === "webgpu" ? "dense" : storedExperts ? "products" : "fused",
    fusedMatMul: provider !== "webgpu",
    skipNorm: true,
    logSoftmax: provider !== "webgpu",
    indexProducts: provider === "cuda" && half ? "float16" : "float32",
    keyBounds: provider === "webgpu" ? "slices" : provider === "cuda" && half && cudnn ? "lengths" : "offsets",
    chunkRows: provider === "cuda" && half ? 1024 : 512,
    gatherCost: half ? 600 : 210,
    mostGathered,
    atOnce: provider === "cuda" && half,
  };
}

/** Elements of a layer's experts from which on putting them together on the host takes seconds. */
const heavyExperts = 2 ** 25;

/**
 * Whether frozen layers read experts as they are stored while their neighbours are trained. Large ones: putting them together
 * beforehand takes 5 s a GiB, in every run 5 ms, and a layer is opened anew for each group and each pass.
 */
export function frozenKernels(provider: Provider, config: DsaConfig): KernelSettings {
  const { nRoutedExperts, moeIntermediateSize, hiddenSize } = config;
  const heavy = 3 * nRoutedExperts * moeIntermediateSize * hiddenSize >= heavyExperts;
  return { storedExperts: provider === "cuda" && heavy };
}

/**
 * Kernels of graphs that take one chunk of rows after the other on a CPU: an expert without rows does not run there, and no
 * chunk is so long that its experts all have some.
 */
export const chunkKernels: Kernels = { ...kernelsOf("cpu", OnnxType.float), experts: "branch", skipNorm: false };

/** How graphs of chunks of rows select keys and read them, by the number of keys. */
export interface ChunkWays {
  /**
   * Up to so many keys all are read under a mask; beyond, the rows' own are gathered. The gather's lead grows with the
   * context.
   */
  denseUpTo: number;
  /**
   * A chunk's rows gather in so many blocks, one after the other: what is gathered then stays in a core's cache until it has
   * been multiplied twice. 0.94 of a prefill of 4,096 tokens, 0.9 of one of 1,024; four blocks are worth half of it.
   */
  gatherBlocks: number;
  /**
   * From so many keys on ONNX Runtime's top-k keeps a heap of k (log k / log n < 0.725), where what takes time is a score that
   * enters it: `raiseOthers` leaves few of them. 0.76 of the time of a top-k of 128 at 1,024 keys, 0.64 at 4,096, 0.62 at 8,192.
   * Up to there it partitions, and equal scores save nothing.
   */
  boundFrom: number;
  /** Fewer rows than these save less by that than its operators take. */
  boundRows: number;
  /**
   * From there on rows select in so many blocks, and a block's scores of past keys are made in `selectPieces`: what has been
   * multiplied then stays in a core's cache (2 MiB) until it has been added up, bounded and sorted. Blocks of scores alone, joined
   * before the top-k, are worth half of that. More blocks gain nothing and open later.
   */
  selectBlocks: number;
  /** Of keys. Half as many take 1.06 times as long for 256 rows at 8,192 keys beside other jobs, 1.03 at 4,096. */
  selectPieces: number;
  /** Groups of scores that `raiseOthers` makes: more make a larger top-k, fewer a lower bound. */
  scoreGroups: number;
}

export function chunkWays({ indexTopk }: DsaConfig): ChunkWays {
  return {
    denseUpTo: 4 * indexTopk,
    gatherBlocks: 8,
    boundFrom: Math.max(Math.ceil(indexTopk ** (1 / 0.725)), 4 * indexTopk),
    boundRows: 8,
    selectBlocks: 4,
    selectPieces: 8,
    scoreGroups: 2 * indexTopk,
  };
}

/**
 * Up to how many keys queries read all of them, expanded: both ways cost the same where the multiply-adds of that take as
 * long as gathering `index_topk` latent rows.
 */
export function readableLimit(config: DsaConfig, { gatherCost }: Kernels): number {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const perKey = heads * (rope + nope + vHeadDim);
  return Math.max(Math.ceil((gatherCost * config.indexTopk * latentWidth(config)) / perKey), config.indexTopk);
}
