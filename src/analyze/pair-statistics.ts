/** Means over queries of what pairs of layers have in common: by layer, source and position of the query. */
import type { Statistic } from "../formats/analysis-file.ts";
import type { LayerObservation } from "../runtime/stages/layer-observer.ts";

type StatisticName = "overlap" | "recall" | "similarity";

/** Sums of one statistic; `[layers, sources]` for each bucket of positions. */
class PairSums {
  readonly #layers: number;
  readonly #sources: number;
  readonly #sums: Float64Array[] = [];

  constructor(layers: number, sources: number) {
    this.#layers = layers;
    this.#sources = sources;
  }

  add(layer: number, source: number, bucket: number, value: number): void {
    while (this.#sums.length <= bucket) {
      // NaN until something is added: a pair that was never looked at has no mean.
      this.#sums.push(new Float64Array(this.#layers * this.#sources).fill(Number.NaN));
    }
    const sums = this.#sums[bucket] as Float64Array;
    const cell = layer * this.#sources + source;
    sums[cell] = Number.isNaN(sums[cell]) ? value : (sums[cell] as number) + value;
  }

  /** Means over the queries of each bucket, and over all of them. */
  statistic(buckets: readonly Bucket[]): Statistic {
    const means = (sums: Float64Array, queries: number) =>
      Array.from({ length: this.#layers }, (_, layer) =>
        Array.from({ length: this.#sources }, (_, source) => {
          const sum = sums[layer * this.#sources + source] as number;
          return Number.isNaN(sum) ? null : sum / queries;
        }),
      );
    const all = new Float64Array(this.#layers * this.#sources);
    for (const sums of this.#sums) for (const [cell, sum] of sums.entries()) all[cell] = (all[cell] as number) + sum;
    return {
      mean: means(
        all,
        buckets.reduce((total, { queries }) => total + queries, 0),
      ),
      by_position: buckets.map((bucket, index) => ({
        ...bucket,
        mean: means(this.#sums[index] as Float64Array, bucket.queries),
      })),
    };
  }
}

interface Bucket {
  from: number;
  to: number;
  queries: number;
}

/**
 * Overlap, recall and similarity of all pairs, as the analysis file defines them. Every query counts the same; buckets
 * of positions double from `index_topk` visible keys on.
 */
export class PairStatistics {
  readonly sources: readonly number[];
  readonly #indexTopk: number;
  readonly #sums: Record<StatisticName, PairSums>;
  readonly #buckets: Bucket[] = [];

  /** @param sources layers that own an indexer, ascending */
  constructor(layers: number, sources: readonly number[], indexTopk: number) {
    this.sources = sources;
    this.#indexTopk = indexTopk;
    const sums = () => new PairSums(layers, sources.length);
    this.#sums = { overlap: sums(), recall: sums(), similarity: sums() };
  }

  /** Takes up one layer of one sequence; all layers of a sequence have to come, in order. */
  add({ layer, firstQuery, queries, own, sources, recall, similarity }: LayerObservation): void {
    for (let query = 0; query < queries; query++) {
      const row = firstQuery + query;
      const bucket = this.#bucketOf(row + 1);
      if (layer === 0) this.#count(bucket);
      for (const [index, source] of sources.entries()) {
        const overlap = own.common(source.selection, row) / this.#indexTopk;
        this.#sums.overlap.add(layer, index, bucket, overlap);
        // Overlap has no direction: the source's row gets it too, if this layer is a column.
        if (this.sources[sources.length - 1] === layer && source.layer !== layer) {
          this.#sums.overlap.add(source.layer, sources.length - 1, bucket, overlap);
        }
        this.#sums.recall.add(layer, index, bucket, (recall[index] as Float32Array)[query] as number);
        this.#sums.similarity.add(layer, index, bucket, (similarity[index] as Float32Array)[query] as number);
      }
    }
  }

  get queries(): number {
    return this.#buckets.reduce((total, { queries }) => total + queries, 0);
  }

  result(): Record<StatisticName, Statistic> {
    const { overlap, recall, similarity } = this.#sums;
    return {
      overlap: overlap.statistic(this.#buckets),
      recall: recall.statistic(this.#buckets),
      similarity: similarity.statistic(this.#buckets),
    };
  }

  /** Up to 2, 4, 8... times `index_topk` keys. */
  #bucketOf(visible: number): number {
    let bucket = 0;
    while (visible > this.#indexTopk * 2 ** (bucket + 1)) bucket++;
    return bucket;
  }

  #count(bucket: number): void {
    while (this.#buckets.length <= bucket) {
      const to = this.#indexTopk * 2 ** (this.#buckets.length + 1);
      this.#buckets.push({ from: (this.#buckets.at(-1)?.to ?? this.#indexTopk - 1) + 1, to, queries: 0 });
    }
    (this.#buckets[bucket] as Bucket).queries++;
  }
}
