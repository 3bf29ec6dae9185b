/**
 * One prompt under several patterns. Layers run one after the other over the whole prompt, and patterns that agree on the
 * first layers share them: hidden states, selected keys and caches up to the layer where they part are computed once. So
 * are, in every layer, the rows below `index_topk`, which select all that they see under any pattern. What each pattern gets
 * is what it would get alone, to the last bit, because chunks depend on nothing but positions.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../../base/errors.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import { RowCache } from "../stages/row-cache.ts";
import { type KnownRows, type SelectedKeys, type SequenceRows, StageModel } from "../stages/stage-model.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { openDecoder } from "./decoder.ts";
import type { PrefilledDecoder, PrefillSettings, PromptPrefills } from "./prompt-prefills.ts";

/** Patterns that have agreed on every layer below `layer`, and what those layers left. */
interface Branch {
  patterns: readonly Pattern[];
  layer: number;
  hidden: Float32Array;
  selected: readonly SelectedKeys[];
  latents: readonly RowCache[];
  indexerKeys: ReadonlyMap<number, RowCache>;
  seconds: number;
}

/** What the first branch through a layer has left of the rows that no pattern changes. */
interface InvariantRows {
  body?: { known: KnownRows; seconds: number };
  keys?: { known: Float32Array; seconds: number };
}

/** Prefills by stages, and a decoder of each pattern that takes over their caches. */
export class SharedPrefill implements PromptPrefills {
  readonly executions = { made: 0, alone: 0 };
  readonly #stages: StageModel;
  readonly #decoders = new Map<Pattern, CachedDecoder>();

  private constructor(stages: StageModel) {
    this.#stages = stages;
  }

  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    { device, threads }: PrefillSettings,
  ): Promise<SharedPrefill> {
    const prefill = new SharedPrefill(await StageModel.open(model, { device, threads }, { patterns }));
    try {
      for (const pattern of patterns) {
        // They are not alone in their process: no spinning threads.
        prefill.#decoders.set(pattern, await openDecoder(model, pattern, { device, threads, solo: false }));
      }
    } catch (error) {
      await prefill.release();
      throw error;
    }
    return prefill;
  }

  get plan(): string[] {
    return [`weights are loaded ${this.#decoders.size + 1} times: stages for prefills, and a graph for each pattern`];
  }

  /** Depth first in the tree of the patterns' prefixes. */
  async *run(
    prompt: readonly number[],
    patterns: readonly Pattern[],
    room: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PrefilledDecoder> {
    const started = performance.now();
    const { hidden, rows } = await this.#stages.embed(Int32Array.from(prompt));
    const root = { layer: 0, hidden, selected: [], latents: [], indexerKeys: new Map(), seconds: since(started) };
    const branches: Branch[] = [{ ...root, patterns }];
    const invariant: InvariantRows[] = this.#stages.config.indexerLayers.split("").map(() => ({}));
    for (let branch = branches.pop(); branch !== undefined; branch = branches.pop()) {
      let state = branch;
      while (state.layer < this.#stages.config.numHiddenLayers) {
        // A run blocks the event loop; between layers a signal can arrive.
        await nextTurn();
        if (signal?.aborted) throw new InterruptedError("Interrupted");
        const { layer } = state;
        const full = state.patterns.filter((pattern) => isFull(pattern, layer));
        const shared = state.patterns.filter((pattern) => !isFull(pattern, layer));
        if (full.length > 0 && shared.length > 0) branches.push({ ...state, patterns: shared });
        const kept = invariant[layer] as InvariantRows;
        state = await this.#runLayer({ ...state, patterns: full.length > 0 ? full : shared }, rows, room, kept);
      }
      const headStarted = performance.now();
      const logits = await this.#stages.lastLogits(state.hidden);
      const seconds = state.seconds + since(headStarted);
      for (const pattern of state.patterns) {
        const decoder = this.#decoders.get(pattern) as CachedDecoder;
        decoder.adopt(state);
        yield { pattern, decoder, logits, seconds };
      }
    }
  }

  async release(): Promise<void> {
    for (const decoder of this.#decoders.values()) await decoder.release();
    await this.#stages.release();
  }

  /** The branch behind its next layer. What it held is left as it was: another branch may start from there. */
  async #runLayer(branch: Branch, rows: SequenceRows, room: number, kept: InvariantRows): Promise<Branch> {
    const { config } = this.#stages;
    const { layer, hidden, patterns } = branch;
    const started = performance.now();
    let { selected, indexerKeys, seconds } = branch;
    if (patterns.some((pattern) => isFull(pattern, layer))) {
      const keys = new RowCache(config.indexHeadDim, rows.length + room);
      const result = await this.#stages.selectKeys(layer, hidden, rows, kept.keys?.known, keys.reserve(rows.length));
      selected = result.selected;
      indexerKeys = new Map([...indexerKeys, [layer, keys]]);
      seconds += kept.keys?.seconds ?? 0;
      kept.keys ??= { known: result.firstKeys, seconds: result.firstSeconds };
    }
    const latents = new RowCache(latentWidth(config), rows.length + room);
    const storage = latents.reserve(rows.length);
    const body = await this.#stages.runBody(layer, hidden, rows, selected, kept.body?.known, storage);
    seconds += kept.body?.seconds ?? 0;
    kept.body ??= {
      // A copy: the whole states of every layer would stay in memory.
      known: { latent: body.firstLatent, hidden: body.hidden.slice(0, rows.invariant * config.hiddenSize) },
      seconds: body.firstSeconds,
    };
    this.executions.made++;
    this.executions.alone += patterns.length;
    return {
      patterns,
      layer: layer + 1,
      hidden: body.hidden,
      selected,
      latents: [...branch.latents, latents],
      indexerKeys,
      seconds: seconds + since(started),
    };
  }
}

function since(start: number): number {
  return (performance.now() - start) / 1000;
}
