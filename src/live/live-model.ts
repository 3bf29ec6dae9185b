/** The servers of a run: what they serve, whether a pattern can be switched there, and their pattern back at the end. */

import { InputError, RuntimeFailure, UsageError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import { withoutUndefined } from "../base/without-undefined.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { parsePattern } from "../pattern/pattern.ts";
import { connect } from "./connection.ts";
import type { EngineAdapter, EngineDescription } from "./engine-adapter.ts";
import type { ClientSettings } from "./http-client.ts";

/** What a server must have in common with the model folder that tokens come from. */
export interface ServedShape {
  name: string;
  numHiddenLayers: number;
  vocabSize: number;
  indexTopk: number;
}

export interface ServedModelSettings extends ClientSettings {
  /** Hears what a user should know: a pattern left behind, logits in another dtype. */
  note: (words: string) => void;
}

/** Milliseconds that giving the pattern back may take: less than SIGTERM leaves. */
const restoreLimit = 3000;

/** One server. */
export interface Replica {
  adapter: EngineAdapter;
  description: EngineDescription;
}

export class LiveModel {
  readonly replicas: readonly Replica[];
  readonly #note: (words: string) => void;
  #switched = false;

  private constructor(replicas: readonly Replica[], note: (words: string) => void) {
    this.replicas = replicas;
    this.#note = note;
  }

  /**
   * Connects to each server and asks what it runs. Nothing is switched yet.
   * @throws InputError where servers differ, or one is no engine with the kit
   */
  static async open(
    urls: readonly string[],
    { note, ...client }: ServedModelSettings,
    signal?: AbortSignal,
  ): Promise<LiveModel> {
    const adapters: EngineAdapter[] = [];
    try {
      const replicas: Replica[] = [];
      for (const url of urls) {
        const adapter = await connect(url, client, signal);
        adapters.push(adapter);
        replicas.push({ adapter, description: await adapter.describe(signal) });
      }
      requireAlike(replicas);
      return new LiveModel(replicas, note);
    } catch (error) {
      for (const adapter of adapters) await adapter.close();
      throw error;
    }
  }

  get description(): EngineDescription {
    return (this.replicas[0] as Replica).description;
  }

  /** F for every layer that has an indexer on the server, S for the others. */
  get ownPattern(): Pattern {
    const letters = this.description.state.letters.replaceAll("S", "F").replaceAll("-", "S");
    return parsePattern(letters, `${this.replicas[0]?.adapter.url}`);
  }

  /** Layers that must stay Full because a rank's first layer finds no indices of another layer there. */
  get pinned(): number[] {
    return this.description.stageStarts.filter((layer) => layer > 0);
  }

  /**
   * @throws InputError for a server under which a switch is not what would be measured, or which other clients use
   */
  async requireSwitchable(signal?: AbortSignal): Promise<void> {
    for (const { adapter, description } of this.replicas) {
      const [obstacle, ...more] = description.obstacles;
      if (obstacle !== undefined) {
        throw new InputError(
          `${adapter.url} (${description.title}) cannot switch patterns: ${[obstacle, ...more].join("; ")}`,
          { hint: "`indexcache kit FOLDER` prints a command that starts such a server" },
        );
      }
      const running = await adapter.running(signal);
      if (running !== undefined && running > 0) {
        throw new InputError(`${adapter.url} is answering ${running} requests of other clients`, {
          hint: "they would be answered under the patterns that are tried, and move the measurements: take a server that nobody else uses",
        });
      }
    }
  }

  /**
   * Compares the server's model with the folder of `-m`.
   * @throws InputError for another depth, vocabulary or index_topk
   */
  requireShape(shape: ServedShape): void {
    const { layers, vocabSize, indexTopk, servedModel } = this.description;
    const pairs = [
      ["num_hidden_layers", layers, shape.numHiddenLayers],
      ["vocab_size", vocabSize, shape.vocabSize],
      ["index_topk", indexTopk, shape.indexTopk],
    ] as const;
    const differing = pairs.filter(([, served, own]) => served !== undefined && served !== own);
    if (differing.length === 0) return;
    const details = differing.map(([field, served, own]) => `${field} ${served} there, ${own} in -m`);
    throw new InputError(
      `${this.replicas[0]?.adapter.url} serves ${quoted(servedModel)}, which is not ${quoted(shape.name)}: ${details.join(", ")}`,
      { hint: "-m is the folder with config.json and the tokenizer of the very model that is served" },
    );
  }

  /** Before the first switch: says what an earlier run has left behind, and gets exact logits. */
  async prepare(signal?: AbortSignal): Promise<void> {
    this.#switched = true;
    for (const replica of this.replicas) {
      const { adapter, description } = replica;
      const left = leftBehind(description);
      if (left !== undefined) this.#note(`${adapter.url}: ${left}; it gets that one back at the end`);
      const words = await adapter.prepare(signal);
      if (words !== undefined) this.#note(`${adapter.url}: ${words}`);
      replica.description = { ...(await adapter.describe(signal)), state: description.state };
    }
  }

  /**
   * Gives every server the pattern that it started with (or, where it does not tell, had at first).
   * @param always also what an earlier run has changed besides the pattern
   * @returns whether all have taken it
   */
  async restore(always = false): Promise<boolean> {
    let done = true;
    for (const { adapter, description } of this.replicas) {
      const letters = description.bootLetters ?? description.state.letters;
      const signal = AbortSignal.timeout(restoreLimit);
      try {
        await adapter.restore(signal, always);
        await adapter.set(letters, signal);
        await adapter.reset(signal);
      } catch (error) {
        done = false;
        const why = signal.aborted ? `no answer in ${restoreLimit / 1000} s` : (error as Error).message;
        this.#note(
          `${adapter.url} may still run the last pattern that was tried (${why}); once it answers: indexcache server ${adapter.url} --restore`,
        );
      }
    }
    return done;
  }

  /** Restores what was switched, and closes connections. */
  async release(): Promise<void> {
    if (this.#switched) await this.restore();
    this.#switched = false;
    for (const { adapter } of this.replicas) await adapter.close();
  }
}

/** What a run that was killed has left on the server, in words. */
export function leftBehind({ state, bootLetters }: EngineDescription): string | undefined {
  if (bootLetters === undefined || bootLetters === state.letters) return undefined;
  return `it runs ${state.letters}, which an earlier run has left behind: it was started with ${bootLetters}`;
}

/** A pattern as the server's kit takes it: `-` for layers that have no indexer there. */
export function serverLetters(pattern: Pattern, { state }: EngineDescription): string {
  const letters = [...pattern].map((letter, layer) => {
    if (state.letters[layer] !== "-") return letter;
    if (letter === "S") return "-";
    throw new UsageError(`the pattern makes layer ${layer} Full, which has no indexer on the server`, {
      hint: "it was Shared when the server was started: start it with every indexer",
    });
  });
  return letters.join("");
}

/** The fields that decide numbers. */
export function numbersOf(description: EngineDescription): Record<string, string | number> {
  const { engine, version, servedModel, dtype, kvCacheDtype, headDtype, tensorParallel, pipelineParallel } =
    description;
  return {
    engine,
    engine_version: version,
    served_model: servedModel,
    ...withoutUndefined({ dtype, kv_cache_dtype: kvCacheDtype, head_dtype: headDtype }),
    tensor_parallel: tensorParallel,
    pipeline_parallel: pipelineParallel,
  };
}

function requireAlike(replicas: readonly Replica[]): void {
  const [first, ...others] = replicas;
  if (first === undefined) throw new RuntimeFailure("no server");
  const key = ({ state, ...description }: EngineDescription): string =>
    JSON.stringify([
      numbersOf(description as EngineDescription),
      description.layers,
      state.letters.replaceAll("S", "F"),
    ]);
  const other = others.find(({ description }) => key(description) !== key(first.description));
  if (other === undefined) return;
  throw new InputError(
    `${other.adapter.url} is no replica of ${first.adapter.url}: ${key(other.description)} against ${key(first.description)}`,
    { hint: "several servers must run the same model on the same release, with the same settings" },
  );
}
