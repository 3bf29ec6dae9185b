/**
 * What the kit for vLLM and SGLang does inside those engines, for this server: say what runs, change the pattern of all
 * requests, count the runs of indexers. Nothing here throws: an exception in a worker ends a real engine, so the kit
 * answers `{"error": ...}`, and so does this.
 */
import { IndexCacheError } from "../../base/errors.ts";
import { toolVersion } from "../../base/version.ts";
import { type Pattern, requireLayers } from "../../pattern/pattern.ts";
import { resolvePattern } from "../../pattern/schedule.ts";
import type { ServerContext } from "../server-context.ts";

export type RpcResult = Record<string, unknown>;

export class PatternSwitch {
  readonly #context: ServerContext;
  /** Runs of each layer's indexer at the last reset. */
  #before: readonly number[];
  #refused: string | undefined;
  readonly #bootLetters: string;

  constructor(context: ServerContext) {
    this.#context = context;
    this.#before = [...context.runner.counts.indexerRuns];
    this.#bootLetters = context.patterns.letters;
  }

  /** What runs here, as a worker of an engine would tell it. */
  describe(): RpcResult {
    const { runner, patterns } = this.#context;
    const { config } = runner;
    return {
      ...this.#state(),
      engine: "indexcache",
      engine_version: toolVersion,
      boot_letters: this.#bootLetters,
      model: patterns.model,
      num_hidden_layers: config.numHiddenLayers,
      vocab_size: config.vocabSize,
      index_topk: config.indexTopk,
      first_layer: 0,
      last_layer: config.numHiddenLayers - 1,
      kv_cache_dtype: "float32",
      head_dtype: "float32",
      enforce_eager: true,
      speculative: null,
      tensor_parallel_size: 1,
      pipeline_parallel_size: 1,
      data_parallel_size: 1,
      // Rows are kept apart by pattern: none that another pattern has made is ever read.
      prefix_caching: false,
    };
  }

  /**
   * Makes a pattern that of all requests that name none.
   * @param letters F, S, and `-` for layers without an indexer
   */
  set(letters: unknown): RpcResult {
    const { patterns, runner } = this.#context;
    const checked = readLetters(letters, patterns.indexers);
    if ("error" in checked) return this.refuse(checked.error);
    this.#refused = undefined;
    patterns.current = checked.pattern;
    runner.prefixes.clear();
    return this.#state();
  }

  /** Why the last switch was refused; undefined after one that was not. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** The answer to a switch that cannot be made: the pattern stays. */
  refuse(error: string): RpcResult {
    this.#refused = error;
    return { ...this.#state(), error };
  }

  /** The dtype of logits: float32 here, which is the model's own as well. */
  head(dtype: unknown): RpcResult {
    if (dtype !== "float32" && dtype !== "model")
      return { ...this.#state(), error: "head is neither float32 nor model" };
    return { ...this.#state(), head_dtype: "float32" };
  }

  /** Runs of each layer's indexer since the last reset. */
  count(reset: boolean): RpcResult {
    const runs = this.#context.runner.counts.indexerRuns;
    const calls = runs.map((count, layer) => count - (this.#before[layer] ?? 0));
    if (reset) this.#before = [...runs];
    return { ...this.#state(), calls };
  }

  #state(): { boot_id: string; rank: number; letters: string } {
    const { bootId, patterns } = this.#context;
    return { boot_id: bootId, rank: 0, letters: patterns.letters };
  }
}

function readLetters(letters: unknown, indexers: Pattern): { pattern: Pattern } | { error: string } {
  if (typeof letters !== "string") return { error: "letters must be a string of F, S and -" };
  // A layer without an indexer is Shared, whatever a client writes for it; F there is refused below.
  const written = [...letters].map((letter, layer) => (letter === "-" && indexers[layer] === "S" ? "S" : letter));
  try {
    const pattern = resolvePattern(written.join(""), { layers: indexers.length, indexers }, "letters");
    return { pattern: requireLayers(pattern, indexers.length, "letters") };
  } catch (error) {
    if (error instanceof IndexCacheError) return { error: error.message };
    throw error;
  }
}
