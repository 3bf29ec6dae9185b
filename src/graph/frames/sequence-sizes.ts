/** Bytes of the widest tensors of a sequence graph: the graph is cut by them, and a memory plan adds them up. */
import { OnnxType } from "../../checkpoint/dtype.ts";
import { latentWidth } from "../exported/contract.ts";
import { readableLimit } from "../layer/kernels.ts";
import { asksTogether, isWrittenOut, postAttentionBytes, type SequenceContext, selectsKeys } from "./sequence-rows.ts";

export type SizedGraph = Pick<SequenceContext, "config" | "shape" | "kernels"> & {
  settings: Pick<SequenceContext["settings"], "precision">;
};

/** Up to how many keys queries read all of them. */
export function readableKeys({ config, shape, kernels }: Omit<SizedGraph, "settings">): number {
  // Several sequences at once are short ones: their rows would have to be gathered from one cache each.
  return shape.batch > 1 || shape.chunks === 1 ? shape.length : Math.min(shape.length, readableLimit(config, kernels));
}

/** Queries and outputs of all heads, with keys and values and a chunk's bias, or with a chunk's gathered latent rows. */
export function attentionBytes(graph: SizedGraph): number {
  const { config, shape } = graph;
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexTopk } = config;
  const { batch, length, chunkRows } = shape;
  const size = elementBytes(graph);
  const [width, readable] = [qkNopeHeadDim + qkRopeHeadDim, readableKeys(graph)];
  const perHead = (rows: number, columns: number): number => batch * rows * heads * columns * size;
  const chunk = batch * chunkRows * size;
  const read = perHead(readable, width + vHeadDim) + 2 * chunk * readable;
  const scores = 2 * chunk * indexTopk * heads;
  const gathered = readable === length ? 0 : (gatheredBytes(graph) + scores) / gatherBlocks(graph);
  const asked = asksTogether(graph) ? length : chunkRows;
  const answered = postAttentionBytes(config, shape) > 0 ? length : chunkRows;
  return perHead(asked, width) + perHead(answered, vHeadDim) + Math.max(read, gathered);
}

/** In how many blocks of rows a chunk's selected latent rows are gathered. */
export function gatherBlocks(graph: SizedGraph): number {
  const { shape, kernels } = graph;
  const most = Math.ceil(Math.log2(gatheredBytes(graph) / kernels.mostGathered));
  return Math.min(shape.chunkRows, 2 ** Math.max(0, most));
}

/** The latent rows that a chunk's queries select. */
function gatheredBytes(graph: SizedGraph): number {
  const { config, shape } = graph;
  return shape.batch * shape.chunkRows * config.indexTopk * latentWidth(config) * elementBytes(graph);
}

/** Index queries of all rows or of a chunk, one product with keys, and three times the scores of a chunk. */
export function indexingBytes(graph: SizedGraph): number {
  const { config, shape } = graph;
  if (!selectsKeys(config, shape)) return 0;
  const { batch, length, chunkRows } = shape;
  const rows = batch * (asksTogether(graph) ? length : chunkRows);
  const asked = rows * config.indexNHeads * config.indexHeadDim * elementBytes(graph);
  const product = productBytes(graph, length) / scoreBlocks(graph, length);
  // Its relu is an operator of its own.
  return asked + 2 * product + 12 * batch * chunkRows * length;
}

/** A product of index queries and keys up to here is never cut. */
const leastCutBytes = 2 ** 28;
/** Share of what attention takes that such a product may take, the widest tensor of all: its relu is a second one. */
const productShare = 3 / 8;

/** In how many blocks of rows the index scores of a chunk are made that sees so many keys. */
export function scoreBlocks(graph: SizedGraph, seen: number): number {
  const { batch, chunks, chunkRows } = graph.shape;
  if (batch > 1 || chunks === 1) return 1;
  const most = Math.max(leastCutBytes, productShare * attentionBytes(graph));
  return Math.min(chunkRows, 2 ** Math.max(0, Math.ceil(Math.log2(productBytes(graph, seen) / most))));
}

function productBytes({ config, shape, kernels }: SizedGraph, seen: number): number {
  const size = kernels.indexProducts === "float16" ? 2 : 4;
  return size * shape.batch * shape.chunkRows * config.indexNHeads * Math.max(seen, config.indexTopk);
}

/** Bytes that what is added to index scores may take, of all chunks together. */
const mostRankings = 2 ** 28;

/** Of what is added to the index scores of all chunks and made once, from the first layer to the last; 0 where it is not. */
export function rankingsBytes(graph: Omit<SizedGraph, "settings">): number {
  const { config, shape, kernels } = graph;
  const bytes = 2 * shape.batch * shape.length ** 2;
  const made = kernels.atOnce && selectsKeys(config, shape) && isWrittenOut(graph) && bytes <= mostRankings;
  return made ? bytes : 0;
}

function elementBytes({ settings }: SizedGraph): number {
  return settings.precision === OnnxType.float16 ? 2 : 4;
}
