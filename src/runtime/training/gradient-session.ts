/** Runs a distillation graph: hidden states and indexers in, losses and gradients out. */
import type { Tensor } from "onnxruntime-node";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import type { LayerRange } from "../../graph/exported/contract.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import { type IndexerTensor, indexerTensors } from "../../graph/layer/lightning-indexer.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import {
  buildDistillGraph,
  type DistillGraphSettings,
  fullInput,
  gradientName,
  layersFed,
  lossOutput,
  measureInput,
  missedOutput,
  parameterName,
  type StepStates,
  servesInput,
  sparseInput,
  statesInput,
} from "../../graph/training/distill-graph.ts";
import { isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import type { ComputeDevice } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import { type Feeds, floats, OnnxSession } from "../session/onnx-session.ts";
import { rangeShape, rowPositions, statesTensor } from "./layer-states.ts";

/** Weights of one indexer, row by row as Hugging Face stores them. */
export type IndexerParameters = Record<IndexerTensor, Float32Array>;

/** What a step says of one trained indexer. */
export interface IndexerGradient {
  /** KL divergence of the target from the indexer's distribution, nats, mean over query rows. */
  loss: number;
  /** Share of the target's mass at keys that the indexer does not select, where the step measures it. */
  missed: number | undefined;
  gradients: IndexerParameters;
}

export interface GradientStep {
  /** By layer that is fed (`layersFed`): states that enter it, `[batch * length, hidden_size]`; bits of bfloat16 or numbers. */
  hidden: ReadonlyMap<number, Float32Array | Uint16Array>;
  /** Query positions of every sequence. */
  queries: readonly number[];
  /** Choose among the keys that the indexer selects, instead of all visible ones. */
  sparse: boolean;
  /** Measure what the selections miss; only with `sparse` false. */
  measure?: boolean;
  parameters: ReadonlyMap<number, IndexerParameters>;
  /** What any-pattern graphs train in this step; layers of the whole model. */
  pattern?: Pattern;
  /** Does an indexer learn from its own layer alone? Of any-pattern graphs. */
  ownTargets?: boolean;
}

export interface GradientSessionSettings extends Omit<DistillGraphSettings, "provider" | "frozen"> {
  stepStates: StepStates;
  device: ComputeDevice;
  threads: number;
  /** Writes a profile of every node that runs to `<prefix>_<time>.json`. */
  profilePrefix?: string;
}

export class GradientSession {
  readonly #session: OnnxSession;
  readonly #settings: GradientSessionSettings;
  readonly #range: LayerRange;
  readonly #weights: ModelWeights;
  readonly #hiddenSize: number;
  readonly #positions: Tensor;

  private constructor(
    session: OnnxSession,
    settings: GradientSessionSettings,
    range: LayerRange,
    weights: ModelWeights,
    hiddenSize: number,
  ) {
    this.#session = session;
    this.#settings = settings;
    this.#range = range;
    this.#weights = weights;
    this.#hiddenSize = hiddenSize;
    this.#positions = rowPositions(session, settings);
  }

  static async open(
    model: ModelFolder,
    range: LayerRange,
    settings: GradientSessionSettings,
  ): Promise<GradientSession> {
    const weights = await model.weights();
    const frozen = settings.stepStates === "stored" ? undefined : rangeShape(model.config, settings);
    const graph = buildDistillGraph(model.config, weights, range, {
      ...settings,
      frozen,
      provider: providerOf(settings.device),
    });
    const session = await OnnxSession.create(encodeModel(graph), `layers ${range.from} to ${range.to - 1}`, {
      device: settings.device,
      threads: settings.threads,
      folder: model.places.folder,
      solo: true,
      ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
    });
    return new GradientSession(session, settings, range, weights, model.config.hiddenSize);
  }

  /** @returns losses and gradients of the indexers that the step trains, by layer */
  async run(step: GradientStep): Promise<Map<number, IndexerGradient>> {
    const { batch, length, trained, anyPattern } = this.#settings;
    const { Tensor } = this.#session;
    const feeds: Feeds = {
      position_ids: this.#positions,
      query_positions: new Tensor("int64", BigInt64Array.from(step.queries, BigInt), [step.queries.length]),
      [sparseInput]: new Tensor("bool", [step.sparse], []),
      [measureInput]: new Tensor("bool", [step.measure === true], []),
    };
    const shape = [batch * length, this.#hiddenSize];
    for (const layer of layersFed(this.#range, this.#settings, this.#settings.stepStates)) {
      const states = step.hidden.get(layer);
      if (states === undefined) throw new RangeError(`a step needs the states that enter layer ${layer}`);
      feeds[statesInput(layer)] = statesTensor(this.#session, states, shape);
    }
    for (const [layer, parameters] of step.parameters) {
      for (const tensor of indexerTensors) {
        const shape = this.#weights.layers[layer]?.indexer?.[tensor].shape ?? [];
        feeds[parameterName(layer, tensor)] = new Tensor("float32", parameters[tensor], [...shape]);
      }
    }
    const learns = (layer: number) => step.pattern === undefined || isFull(step.pattern, layer);
    if (anyPattern) this.#choose(feeds, step);
    const outputs = await this.#session.run(feeds);
    const found = new Map<number, IndexerGradient>();
    for (const layer of trained) {
      if (!learns(layer)) continue;
      const gradients = Object.fromEntries(
        indexerTensors.map((tensor) => {
          const name = gradientName(layer, tensor);
          return [tensor, floats(outputs[name], name)];
        }),
      ) as IndexerParameters;
      const [loss = Number.NaN] = floats(outputs[lossOutput(layer)], lossOutput(layer));
      const [share = Number.NaN] = floats(outputs[missedOutput(layer)], missedOutput(layer));
      found.set(layer, { loss, missed: step.measure === true ? share : undefined, gradients });
    }
    return found;
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  /** Switches and shares of an any-pattern graph: row f of `serves` has 1 / n at the n layers that f serves. */
  #choose(feeds: Feeds, { pattern, ownTargets }: GradientStep): void {
    const { Tensor } = this.#session;
    const { from, to } = this.#range;
    const layers = to - from;
    if (pattern === undefined) throw new RangeError("an any-pattern step needs a pattern");
    const serves = new Float32Array(layers * layers);
    const served = new Map<number, number[]>();
    for (let layer = from; layer < to; layer++) {
      const source = sourceLayer(pattern, layer);
      if (ownTargets === true && source !== layer) continue;
      served.set(source, [...(served.get(source) ?? []), layer]);
    }
    for (const [source, all] of served) {
      for (const layer of all) serves[(source - from) * layers + (layer - from)] = 1 / all.length;
    }
    feeds[servesInput] = new Tensor("float32", serves, [layers, layers]);
    for (const layer of this.#settings.trained) {
      if (layer > from) feeds[fullInput(layer)] = new Tensor("bool", [isFull(pattern, layer)], []);
    }
  }
}
