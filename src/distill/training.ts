/**
 * Trains indexers against targets that somebody else computes. Knows nothing of models: it asks for losses and gradients,
 * moves the parameters, and can be put down and taken up again between any two steps.
 */
import { RuntimeFailure } from "../base/errors.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { adamStep, type Moments, noMoments, norm } from "./adamw.ts";
import { BatchOrder, isSparse, patternAt, queriesAt, type Recipe, rateAt } from "./recipe.ts";

/** Tensors of one indexer by name. */
export type Tensors = Record<string, Float32Array>;

/** What a step asks for. */
interface StepRequest {
  step: number;
  /** Numbers of the sequences. */
  sequences: number[];
  /** Those of the step after this one, so that they can be fetched meanwhile; absent in the last one. */
  next: number[] | undefined;
  /** Query positions of every sequence. */
  queries: number[];
  sparse: boolean;
  parameters: ReadonlyMap<number, Tensors>;
  /** Which layers are trained, where patterns are drawn step by step. */
  pattern: Pattern | undefined;
}

/** KL divergence in nats, mean over query rows, and its gradient. */
interface StepGradient {
  loss: number;
  gradients: Tensors;
}

/** Losses and gradients of the layers that a step trains. */
export type ComputeGradients = (request: StepRequest) => Promise<ReadonlyMap<number, StepGradient>>;

export interface StepDone {
  step: number;
  steps: number;
  rate: number;
  /** Norm of the gradient before clipping. */
  norm: number;
  losses: ReadonlyMap<number, number>;
}

/** Everything that decides how the training goes on. */
export interface TrainingState {
  step: number;
  parameters: Map<number, Tensors>;
  moments: Map<number, Record<string, Moments>>;
}

export interface TrainingData {
  /** How many sequences there are. */
  sequences: number;
  /** Tokens of each. */
  length: number;
  /** F where a layer has an indexer to train; given where a pattern is drawn for each step. */
  trainable?: Pattern;
}

export class IndexerTraining {
  readonly #recipe: Recipe;
  readonly #data: TrainingData;
  readonly #order: BatchOrder;
  readonly #state: TrainingState;

  /** @param parameters changed in place, step by step */
  constructor(recipe: Recipe, data: TrainingData, parameters: Map<number, Tensors>, from?: TrainingState) {
    this.#recipe = recipe;
    this.#data = data;
    this.#order = new BatchOrder(data.sequences, recipe.batch, recipe.seed);
    this.#state = from ?? { step: 0, parameters, moments: freshMoments(parameters) };
  }

  get state(): Readonly<TrainingState> {
    return this.#state;
  }

  get finished(): boolean {
    return this.#state.step >= this.#recipe.steps;
  }

  /** @throws RuntimeFailure where a loss or gradient is not finite; the parameters are those before the step */
  async advance(compute: ComputeGradients): Promise<StepDone> {
    const recipe = this.#recipe;
    const { step, parameters, moments } = this.#state;
    const { trainable } = this.#data;
    const pattern = trainable === undefined ? undefined : patternAt(trainable, step, recipe.seed);
    const found = await compute({
      step,
      sequences: this.#order.at(step),
      next: step + 1 < recipe.steps ? this.#order.at(step + 1) : undefined,
      queries: queriesAt(recipe, step, this.#data.length),
      sparse: isSparse(recipe, step),
      parameters,
      pattern,
    });
    for (const [layer, { loss, gradients }] of found) requireFinite(layer, step, loss, gradients);
    const length = norm([...found.values()].flatMap(({ gradients }) => Object.values(gradients)));
    const scale = Math.min(1, recipe.clip / (length + 1e-6));
    const rate = rateAt(recipe, step);
    for (const [layer, { gradients }] of found) {
      for (const [tensor, gradient] of Object.entries(gradients)) {
        const values = parameters.get(layer)?.[tensor];
        const means = moments.get(layer)?.[tensor];
        if (values === undefined || means === undefined) throw new RangeError(`layer ${layer} is not trained`);
        adamStep(values, gradient, means, rate, scale);
      }
    }
    this.#state.step++;
    const losses = new Map([...found].map(([layer, { loss }]) => [layer, loss]));
    return { step, steps: recipe.steps, rate, norm: length, losses };
  }
}

/** A Full layer and the layers that read its selection: `layers[0]` is the Full one. */
export interface LayerGroup {
  full: number;
  layers: number[];
}

/** The groups of a pattern, in order. */
export function layerGroups(pattern: Pattern): LayerGroup[] {
  const starts = fullLayers(pattern);
  return starts.map((full, index) => {
    const end = starts[index + 1] ?? pattern.length;
    return { full, layers: Array.from({ length: end - full }, (_, i) => full + i) };
  });
}

function freshMoments(parameters: Map<number, Tensors>): Map<number, Record<string, Moments>> {
  return new Map(
    [...parameters].map(([layer, tensors]) => [
      layer,
      Object.fromEntries(Object.entries(tensors).map(([name, values]) => [name, noMoments(values.length)])),
    ]),
  );
}

function requireFinite(layer: number, step: number, loss: number, gradients: Tensors): void {
  const bad = Number.isFinite(loss)
    ? Object.entries(gradients).find(([, values]) => !values.every(Number.isFinite))
    : ["loss"];
  if (bad === undefined) return;
  throw new RuntimeFailure(`Step ${step} of layer ${layer}: ${bad[0]} is not finite`, {
    hint: "a lower --rate, or look for infinite weights with indexcache inspect",
  });
}
