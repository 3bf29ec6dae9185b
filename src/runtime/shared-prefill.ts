/**
 * One prompt under several patterns. Layers run one after the other over the whole prompt, and patterns that agree on the
 * first layers share them: hidden states, selected keys and caches up to the layer where they part are computed once. What
 * each pattern gets is what it would get alone, to the last bit, because chunks depend on nothing but positions.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../base/errors.ts";
import { latentWidth } from "../graph/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { isFull, type Pattern } from "../pattern/pattern.ts";
import type { PrefilledCaches } from "./decoder.ts";
import type { SessionSettings } from "./onnx-session.ts";
import { RowCache } from "./row-cache.ts";
import { type SelectedKeys, type SequenceRows, StageModel } from "./stage-model.ts";

export interface PrefilledPrompt extends PrefilledCaches {
  pattern: Pattern;
  /** Time of this pattern's layers, those that it shares counted in full. */
  seconds: number;
}

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

export class SharedPrefill {
  readonly #stages: StageModel;
  /** Layer runs since opening, and those that prefills of each pattern alone would have made. */
  readonly executions = { made: 0, alone: 0 };

  private constructor(stages: StageModel) {
    this.#stages = stages;
  }

  /** Loads the stages that these patterns need. */
  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    settings: Omit<SessionSettings, "folder">,
  ): Promise<SharedPrefill> {
    return new SharedPrefill(await StageModel.openForPrefill(model, settings, patterns));
  }

  /**
   * Prefills a prompt under each of these patterns, which must differ, depth first in the tree of their prefixes. Caches
   * of a pattern are good until the next one is asked for, and whoever appends to them takes the rows off again.
   * @param room rows that will be appended behind the prompt
   */
  async *run(
    prompt: readonly number[],
    patterns: readonly Pattern[],
    room: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PrefilledPrompt> {
    const started = performance.now();
    const { hidden, rows } = await this.#stages.embed(Int32Array.from(prompt));
    const root = { layer: 0, hidden, selected: [], latents: [], indexerKeys: new Map(), seconds: since(started) };
    const branches: Branch[] = [{ ...root, patterns }];
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
        state = await this.#runLayer({ ...state, patterns: full.length > 0 ? full : shared }, rows, room);
      }
      const headStarted = performance.now();
      const logits = await this.#stages.lastLogits(state.hidden);
      const { latents, indexerKeys, seconds } = state;
      for (const pattern of state.patterns) {
        yield { pattern, latents, indexerKeys, logits, seconds: seconds + since(headStarted) };
      }
    }
  }

  async release(): Promise<void> {
    await this.#stages.release();
  }

  /** The branch behind its next layer. What it held is left as it was: another branch may start from there. */
  async #runLayer(branch: Branch, rows: SequenceRows, room: number): Promise<Branch> {
    const { config } = this.#stages;
    const { layer, hidden } = branch;
    const started = performance.now();
    let { selected, indexerKeys } = branch;
    if (branch.patterns.some((pattern) => isFull(pattern, layer))) {
      const keys = new RowCache(config.indexHeadDim, rows.length + room);
      ({ selected } = await this.#stages.selectKeys(layer, hidden, rows, undefined, keys.reserve(rows.length)));
      indexerKeys = new Map([...indexerKeys, [layer, keys]]);
    }
    const latents = new RowCache(latentWidth(config), rows.length + room);
    const body = await this.#stages.runBody(layer, hidden, rows, selected, undefined, latents.reserve(rows.length));
    this.executions.made++;
    this.executions.alone += branch.patterns.length;
    return {
      patterns: branch.patterns,
      layer: layer + 1,
      hidden: body.hidden,
      selected,
      latents: [...branch.latents, latents],
      indexerKeys,
      seconds: branch.seconds + since(started),
    };
  }
}

function since(start: number): number {
  return (performance.now() - start) / 1000;
}
