/**
 * Runs a pattern over a sequence, layer by layer, and looks at every layer: what its indexer selects, and what its
 * attention would lose with the selection of each layer before it. In memory at once: the hidden states of one layer and
 * the selections of all.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import { Selection } from "./selection.ts";
import { type SelectedKeys, type SequenceRows, StageModel } from "./stage-model.ts";
import type { LayerRoom } from "./stage-sessions.ts";

/** One layer of one sequence. Queries are the rows that see at least `index_topk` keys. */
export interface LayerObservation {
  layer: number;
  /** Row of the first query. */
  firstQuery: number;
  queries: number;
  /** What the layer's own indexer selects; without one, what the nearest indexer before it does. */
  own: Selection;
  /** Layers up to this one that own an indexer, ascending, and what they select. */
  sources: { layer: number; selection: Selection }[];
  /** `[sources, queries]`: share of the layer's dense attention mass on the source's selection. */
  recall: Float32Array[];
  /** `[sources, queries]`: cosine of the attention outputs with the source's selection and with the layer's own. */
  similarity: Float32Array[];
}

/** Floats of attention scores `[rows, heads, keys]` of one run of a probe: 32 MiB, of which a run makes a few copies. */
const scoreBudget = 8 << 20;

export class LayerObserver {
  readonly #config: DsaConfig;
  readonly #stages: StageModel;

  private constructor(stages: StageModel) {
    this.#config = stages.config;
    this.#stages = stages;
  }

  /**
   * On the CPU: a layer's tensors go to and fro.
   * @param room which layers stay in memory; all of them where absent
   */
  static async open(model: ModelFolder, threads: number, room?: LayerRoom): Promise<LayerObserver> {
    return new LayerObserver(await StageModel.open(model, { device: "cpu", threads }, { room, purpose: "probes" }));
  }

  /**
   * Looks at every layer of a window, in order. Every indexer of the model scores; `pattern` decides whose selections
   * are used.
   */
  async *observe(ids: Int32Array, pattern: Pattern, signal?: AbortSignal): AsyncGenerator<LayerObservation> {
    const { numHiddenLayers: layers, indexTopk, indexerLayers } = this.#config;
    const { hidden: embedded, rows } = await this.#stages.embed(ids);
    const firstQuery = indexTopk - 1;
    const queries = Math.max(0, rows.length - firstQuery);
    let used: SelectedKeys[] = [];
    const sources: LayerObservation["sources"] = [];
    let hidden = embedded;
    for (let layer = 0; layer < layers; layer++) {
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      if (isFull(indexerLayers, layer)) {
        const keys = (await this.#stages.selectKeys(layer, hidden, rows)).selected;
        if (isFull(pattern, layer)) used = keys;
        sources.push({ layer, selection: this.#selection(keys, rows, firstQuery) });
      }
      const body = await this.#stages.runBody(layer, hidden, rows, used);
      const own = sources.at(-1)?.selection as Selection;
      const observation = { layer, firstQuery, queries, own, sources: [...sources], recall: [], similarity: [] };
      await this.#probe(observation, hidden, rows, body.latent);
      yield observation;
      hidden = body.hidden;
    }
  }

  async release(): Promise<void> {
    await this.#stages.release();
  }

  #selection(chunks: readonly SelectedKeys[], rows: SequenceRows, first: number): Selection {
    const selection = new Selection(first, rows.length - first, rows.length, this.#config.indexTopk);
    for (const [index, { start, end }] of rows.chunks.entries()) {
      const { indices, width } = chunks[index] as SelectedKeys;
      for (let row = Math.max(start, first); row < end; row++) {
        selection.set(row, indices.subarray((row - start) * width, (row - start + 1) * width));
      }
    }
    return selection;
  }

  async #probe(observation: LayerObservation, hidden: Float32Array, rows: SequenceRows, latent: Float32Array) {
    const { layer, firstQuery, queries, own, sources, recall, similarity } = observation;
    const { numAttentionHeads: heads, indexTopk: width } = this.#config;
    for (const _ of sources) {
      // The first query sees just index_topk keys: every selection is all of them.
      recall.push(new Float32Array(queries).fill(1));
      similarity.push(new Float32Array(queries).fill(1));
    }
    for (let start = firstQuery + 1; start < rows.length; ) {
      const end = Math.min(rows.length, start + Math.max(1, Math.floor(scoreBudget / (heads * rows.length))));
      const count = end - start;
      const tried = new Int32Array(sources.length * count * width);
      const ownIndices = new Int32Array(count * width);
      for (let row = start; row < end; row++) {
        own.copyRow(row, ownIndices, (row - start) * width);
        for (const [index, { selection }] of sources.entries()) {
          selection.copyRow(row, tried, (index * count + row - start) * width);
        }
      }
      const found = await this.#stages.probe(layer, hidden, rows, { start, end }, { latent, own: ownIndices, tried });
      for (const index of sources.keys()) {
        const of = (values: Float32Array) => values.subarray(index * count, (index + 1) * count);
        recall[index]?.set(of(found.recall), start - firstQuery);
        similarity[index]?.set(of(found.similarity), start - firstQuery);
      }
      start = end;
    }
  }
}
