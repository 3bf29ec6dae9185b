/** What a distillation takes, from config.json alone: tokens, disk for hidden states, and memory of the largest part. */

import { requiredTensors } from "../checkpoint/bind-weights.ts";
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { elementsIn } from "../checkpoint/dtype.ts";
import type { TargetWeight } from "../graph/training/attention-target.ts";
import { layersFed, layersOfStep, type StepStates } from "../graph/training/distill-graph.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { rowBytes } from "../runtime/loss/sequence-batch.ts";
import { boundaryBytes } from "../runtime/training/boundary-states.ts";
import { rangeShape } from "../runtime/training/layer-states.ts";
import { carriedBatch, rangeBelow } from "./boundaries.ts";
import { attentionParts, layerOperations, stepOperations } from "./distill-work.ts";
import { layersTogether, planWork } from "./distillation.ts";
import { queriesAt, type Recipe } from "./recipe.ts";

export interface DistillPlan {
  stepStates: StepStates;
  groups: number;
  /** Steps of all groups together. */
  steps: number;
  sequences: number;
  heldOut: number;
  length: number;
  /** Tokens that go through the model's layers once. */
  tokens: number;
  /** Tokens of one training step. */
  tokensPerStep: number;
  /** Bytes of the states of all sequences at one boundary, and of those that are kept at a time. */
  boundaryBytes: number;
  boundaries: number;
  diskBytes: number;
  /** Bytes while sequences go through layers: weights in float32, and the batch. */
  carry: MemoryNeed;
  /** Bytes while the largest group is trained. */
  training: MemoryNeed;
  /** Floating-point operations that hidden states take, and all steps. */
  operations: { carry: number; training: number };
}

/** Bytes. */
export interface MemoryNeed {
  weights: number;
  batch: number;
}

export interface DistillShape {
  sequences: number;
  heldOut: number;
  length: number;
}

/** A recipe, and what its targets weigh keys by. */
export type WeighedRecipe = Recipe & { weight: TargetWeight };

export function distillPlan(
  config: DsaConfig,
  pattern: Pattern | "any",
  recipe: WeighedRecipe,
  { sequences, heldOut, length }: DistillShape,
  stepStates: StepStates,
  devices = 1,
): DistillPlan {
  const work = planWork(config.indexerLayers, pattern, recipe.targets);
  const elements = layerElements(config);
  const shape = { sequences: sequences + heldOut, length, hiddenSize: config.hiddenSize };
  const perBoundary = boundaryBytes(shape);
  const batch = carriedBatch(recipe.batch, shape);
  const rows = batch * length;
  const { chunkRows } = rangeShape(config, { batch, length });
  const together = layersTogether(config.indexerLayers, work, stepStates);
  const fedLayers = work.flatMap(({ range, trained, targets }) => layersFed(range, { trained, targets }, stepStates));
  const carried = fedLayers
    .filter((layer) => layer > 0)
    .map((layer) => {
      const { from, to } = rangeBelow(together, layer);
      return sum(elements.slice(from, to).map(({ whole }) => whole));
    });
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexNHeads, indexHeadDim } = config;
  const expanded = heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim);
  const groups = work.map(({ range, trained, targets }) => {
    const layers = layersOfStep(range, { trained, targets });
    const fed = stepStates === "stored" ? layers.length : 1;
    const run = stepStates === "stored" ? [] : elements.slice(range.from, Math.max(...layers));
    return {
      layers: layers.length,
      // The states of a range that shares natively are made together, those of the next group before these are freed.
      kept: work.length === 1 ? fed : Math.max(2, fed),
      weights:
        4 * sum(layers.map((layer) => elements[layer]?.attention ?? 0)) +
        4 * sum(run.map(({ whole, attention }) => whole - attention)),
    };
  });
  const stepRows = recipe.batch * length;
  const scored = recipe.batch * queriesAt(recipe, 0, length).length * length;
  const most = Math.max(...groups.map(({ layers }) => layers));
  const carriedBytes =
    4 * rows * (4 * config.hiddenSize + expanded) + chunkRows * batch * rowBytes({ ...config, vocabSize: 0 }, length);
  const last = Math.max(...fedLayers);
  const queries = queriesAt(recipe, 0, length).length;
  // Of any pattern, half of the indexers or fewer are trained in a step.
  const learners = (trained: readonly number[]) => (trained.length === 1 ? 1 : Math.ceil(trained.length / 2));
  const parts = attentionParts(config);
  // A row's gate makes a norm of each key's contribution: scores of all heads twice more, and squares of all values twice.
  const gates = parts.gatesValues && recipe.weight === "values" ? heads : 0;
  const perStep = work.map(({ range, trained, targets }) => {
    const layers = layersOfStep(range, { trained, targets });
    const looked = { targets: layers.length, trained: learners(trained) };
    const run = stepStates === "stored" ? [] : layerNumbers(range.from, Math.max(...layers));
    return (
      stepOperations(config, { ...parts, gatesValues: gates > 0 }, { batch: recipe.batch, length, queries }, looked) +
      sum(run.map((layer) => layerOperations(config, parts, layer, recipe.batch, length)))
    );
  });
  const carryOperations = sum(
    layerNumbers(0, last).map((layer) => layerOperations(config, parts, layer, sequences + heldOut, length)),
  );
  // Several devices need the states of all groups at once.
  const boundaries = devices > 1 ? new Set(fedLayers).size : Math.max(...groups.map(({ kept }) => kept));
  return {
    stepStates,
    groups: work.length,
    steps: work.length * recipe.steps,
    sequences,
    heldOut,
    length,
    tokens: (sequences + heldOut) * length,
    tokensPerStep: stepRows,
    boundaryBytes: perBoundary,
    boundaries,
    diskBytes: perBoundary * boundaries,
    carry: {
      weights: 4 * Math.max(0, ...carried),
      batch: carriedBytes,
    },
    training: {
      weights: Math.max(...groups.map(({ weights }) => weights)),
      batch:
        // States of this step and the next one as numbers, of one as bits; keys and values of all heads, scores of all heads
        // twice, index scores three times.
        most * stepRows * config.hiddenSize * 10 +
        4 * stepRows * (expanded + indexHeadDim * 4 + 2 * gates * vHeadDim) +
        4 * scored * (2 * heads + 2 * gates + 3 * indexNHeads + 2 * most) +
        (stepStates === "stored" ? 0 : (carriedBytes * recipe.batch) / batch),
    },
    operations: { carry: carryOperations, training: recipe.steps * sum(perStep) },
  };
}

/** `from` to `to - 1` */
function layerNumbers(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index);
}

/** Elements by layer: all of them, and those that a training step reads (attention, indexer, the norm before them). */
function layerElements(config: DsaConfig): { whole: number; attention: number }[] {
  const layers = Array.from({ length: config.numHiddenLayers }, () => ({ whole: 0, attention: 0 }));
  for (const { name, shape } of requiredTensors(config)) {
    const [, number, rest = ""] = /^model\.layers\.(\d+)\.(.*)$/.exec(name) ?? [];
    const layer = layers[Number(number)];
    if (layer === undefined) continue;
    const size = elementsIn(shape);
    layer.whole += size;
    if (rest.startsWith("self_attn.") || rest.startsWith("input_layernorm.")) layer.attention += size;
  }
  return layers;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function totalMemory({ weights, batch }: MemoryNeed): number {
  return weights + batch;
}
