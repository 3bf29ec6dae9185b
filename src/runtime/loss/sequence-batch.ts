/** Windows laid out for a sequence graph: how many at once, padded to one length, rows in the graph's order. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { SequenceShape } from "../../graph/frames/sequence-rows.ts";
import type { Kernels } from "../../graph/layer/kernels.ts";

/** Rows of a run that fill a large GPU: more gain nothing and cost memory. */
const rowsPerRun = 32768;
/** Fewer rows in a run leave even a small model's kernels waiting for their launches. */
const leastRows = 2048;
/** Fewer rows than this starve the matrix products. */
const minChunkRows = 64;
/** Chunks larger than this and than `Kernels.chunkRows` gain nothing: matrix products are at full speed. */
const sensibleChunkBytes = 1.25 * 2 ** 30;

/** How many sequences a run holds where so many are asked for at once: a run of more would compute what nobody wants. */
export function wantedTogether(windows: readonly Int32Array[], together: number): number {
  return Math.max(together, Math.floor(leastRows / longestOf(windows)));
}

function longestOf(windows: readonly Int32Array[]): number {
  return Math.max(...windows.map(({ length }) => length));
}

/**
 * How many sequences share a run, at most `mostSequences`, and how they are cut so that a chunk's working set takes at most
 * `chunkBytes`.
 */
export function sequenceShape(
  config: DsaConfig,
  windows: readonly Int32Array[],
  chunkBytes: number,
  kernels: Pick<Kernels, "chunkRows" | "indexProducts">,
  mostSequences = Number.POSITIVE_INFINITY,
): SequenceShape {
  const longest = longestOf(windows);
  const batch = Math.max(1, Math.min(windows.length, mostSequences, Math.floor(rowsPerRun / longest)));
  const perRow = batch * rowBytes(config, longest, kernels);
  const wanted = Math.max(sensibleChunkBytes / perRow, kernels.chunkRows);
  const rows = Math.max(minChunkRows, Math.floor(Math.min(chunkBytes / perRow, wanted)));
  if (rows >= longest) return { batch, length: longest, chunks: 1, chunkRows: longest };
  const chunkRows = 2 ** Math.floor(Math.log2(rows));
  const chunks = Math.ceil(longest / chunkRows);
  return { batch, length: chunks * chunkRows, chunks, chunkRows };
}

/** Bytes that one query row needs at its widest: index scores of all heads, logits three times, or the MLP. */
export function rowBytes(
  config: DsaConfig,
  length: number,
  { indexProducts }: Pick<Kernels, "indexProducts"> = { indexProducts: "float32" },
): number {
  const scores = (indexProducts === "float16" ? 2 : 4) * config.indexNHeads * length + 16 * length;
  const logits = 12 * config.vocabSize;
  const mlp = 16 * Math.max(config.intermediateSize, config.moeIntermediateSize * config.nRoutedExperts);
  return Math.max(scores, logits, mlp) + 8 * config.hiddenSize;
}

/** Windows that share a run; the graph's batch may be larger, its last places then repeat the first window. */
export class SequenceBatch {
  /** Of the windows, among all. */
  readonly indices: readonly number[];
  /** The same windows in the same order have the same name. */
  readonly name: string;
  readonly ids: BigInt64Array;
  readonly targets: BigInt64Array;
  readonly positions: BigInt64Array;
  /** For each window, the rows that predict its tokens that count. */
  readonly lossRows: number[][];

  /**
   * @param all windows
   * @param scoredFrom position of the first token that counts, for each of all windows; 1 where absent
   */
  constructor(
    all: readonly Int32Array[],
    { batch, length, chunks, chunkRows }: SequenceShape,
    {
      indices = [...all.keys()],
      scoredFrom = [],
    }: { indices?: readonly number[]; scoredFrom?: readonly number[] | undefined } = {},
  ) {
    const rows = batch * length;
    this.indices = indices;
    this.name = indices.join();
    const windows = indices.map((index) => all[index] as Int32Array);
    this.ids = new BigInt64Array(rows);
    this.targets = new BigInt64Array(rows);
    this.positions = new BigInt64Array(rows);
    this.lossRows = windows.map(() => []);
    let row = 0;
    for (let chunk = 0; chunk < chunks; chunk++) {
      for (let place = 0; place < batch; place++) {
        const window = (windows[place] ?? windows[0]) as Int32Array;
        for (let offset = 0; offset < chunkRows; offset++, row++) {
          const position = chunk * chunkRows + offset;
          this.positions[row] = BigInt(position);
          // Rows after the end are padding: nothing before them sees them, and their losses are not read.
          this.ids[row] = BigInt(window[position] ?? 0);
          const target = window[position + 1];
          this.targets[row] = BigInt(target ?? 0);
          const counts = position + 1 >= (scoredFrom[indices[place] ?? -1] ?? 1);
          if (target !== undefined && counts) this.lossRows[place]?.push(row);
        }
      }
    }
  }
}
