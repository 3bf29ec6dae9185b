/**
 * Generation with one pattern on a GPU: the rows of one run in, the logits of some of them out, caches as
 * `generation-caches.ts` has them. One graph holds the ways of reading keys that a prompt and its continuation need; inputs
 * choose, and all ways share one set of weights.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import { fullLayers, isFull, type Pattern } from "../../pattern/pattern.ts";
import {
  type GraphSpec,
  latentWidth,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
  type TensorSpec,
} from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import type { Dimension } from "../graph-parts.ts";
import { mostRecent } from "../layer/attention-kernels.ts";
import { enterLayer, type Hidden, layerBody, lightningIndexer, sumOf } from "../layer/dsa-layer.ts";
import { kernelsOf, type Provider, readableLimit } from "../layer/kernels.ts";
import { rotaryAngles } from "../layer/rope.ts";
import { type GraphSettings, ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { type CacheContext, cacheBlock } from "./generation-caches.ts";
import { farPieces, generationFrame, isSingle, type Pass, startPass, type Way, within } from "./generation-frame.ts";
import { embedding, logits } from "./head.ts";
import { selectInput } from "./sequence-graph.ts";

export interface GenerationSettings {
  precision: GraphSettings["precision"];
  provider: Provider;
  caches: CacheContext["form"];
  /** Rows of every cache: a multiple of `cacheBlock`, and no fewer than `leastCapacity`. */
  capacity: number;
  /** As in `KernelSettings`. */
  storedExperts?: boolean;
  /**
   * Full layers of the graph's pattern that a run may take as Shared (`selectInput`): one set of weights then serves several
   * patterns, each from its own first token on.
   */
  switched?: readonly number[];
}

export function precisionOf(dtype: "float32" | "float16"): GraphSettings["precision"] {
  return dtype === "float16" ? OnnxType.float16 : OnnxType.float;
}

/** Top-k takes `index_topk` of the rows that are readable, however few have been written. */
export function leastCapacity(config: DsaConfig): number {
  return Math.ceil(config.indexTopk / cacheBlock) * cacheBlock;
}

/** What a run has to be told for its way; every input is a bool scalar. */
const ways = ["every", "read", "gather", "single", "far"] as const satisfies readonly Way[];

export const wayInput = (way: Way) => `way.${way}`;

/** The ways that caches of a capacity can need. The last one is taken where no other is chosen. */
export function waysOf(config: DsaConfig, { precision, provider, capacity }: GenerationSettings): Way[] {
  const gathers = capacity > readableLimit(config, kernelsOf(provider, precision));
  const needed: Record<Way, boolean> = {
    every: true,
    read: capacity > config.indexTopk,
    gather: gathers && capacity > config.indexTopk,
    far: capacity >= farKeys(config),
    single: true,
  };
  return ways.filter((way) => needed[way]);
}

/** From this many keys on, one row's top-k is worth cutting into pieces: each must hold `index_topk` keys. */
export function farKeys(config: DsaConfig): number {
  return farPieces * config.indexTopk;
}

/** Layers of one branch: 48 layers open in 11.3 s of a CPU as one, in a third of it as branches of eight. */
const layersTogether = 8;
/** With fewer it takes no time worth a branch. */
const layersApart = 16;

/** A bool that is true, where layers are in branches: ONNX Runtime would take branches with a known condition apart. */
export const layersInput = "run_layers";

/** Are the layers of a model in several branches? */
export function hasLayersInput({ numHiddenLayers }: DsaConfig): boolean {
  return numHiddenLayers > layersApart;
}

/** Inputs and outputs. Row counts are known at run time only. */
function generationSpec(config: DsaConfig, pattern: Pattern, settings: GenerationSettings): GraphSpec {
  const int64 = (name: string, ...shape: Dimension[]): TensorSpec => ({ name, type: OnnxType.int64, shape });
  const cache = (name: string, rows: Dimension, width: number): TensorSpec => ({
    name,
    type: settings.precision,
    shape: [rows, width],
  });
  const inputs: TensorSpec[] = [
    int64("input_ids", "rows"),
    int64("position_ids", "rows"),
    // The rows whose logits are wanted.
    int64("logits_row", "wanted_rows"),
    // Without elements: its first dimension is the number of blocks that are read. A graph can tell shapes without
    // fetching anything from the device, in branches too.
    { name: "readable_blocks", type: OnnxType.float, shape: ["blocks", 0] },
    ...waysOf(config, settings)
      .slice(0, -1)
      .map((way) => ({ name: wayInput(way), type: OnnxType.bool, shape: [] })),
    ...(hasLayersInput(config) ? [{ name: layersInput, type: OnnxType.bool, shape: [] }] : []),
    ...(settings.switched ?? []).map((layer) => ({ name: selectInput(layer), type: OnnxType.bool, shape: [] })),
  ];
  const outputs: TensorSpec[] = [{ name: "logits", type: OnnxType.float, shape: ["wanted_rows", config.vocabSize] }];
  if (settings.caches === "resident") return { inputs, outputs };
  for (const { past, fresh, width } of generationCaches(config, pattern)) {
    inputs.push(cache(past, settings.capacity, width));
    outputs.push(cache(fresh, "rows", width));
  }
  return { inputs, outputs };
}

/** Every cache: where its rows are, where a run's new ones come out, and their width. Latents first. */
export function generationCaches(config: DsaConfig, pattern: Pattern) {
  const latents = [...pattern].map((_, layer) => ({
    past: pastLatent(layer),
    fresh: newLatent(layer),
    width: latentWidth(config),
  }));
  const keys = [...pattern].flatMap((letter, layer) =>
    letter === "F" ? [{ past: pastIndexerKey(layer), fresh: newIndexerKey(layer), width: config.indexHeadDim }] : [],
  );
  return [...latents, ...keys];
}

/** What they hold, where a number of a row's takes so many bytes, in all rows together. */
export function cachedBytes(
  config: DsaConfig,
  pattern: Pattern,
  bytes: number,
): { latent: number; indexerKey: number } {
  const { numHiddenLayers: layers, indexHeadDim } = config;
  return {
    latent: bytes * layers * latentWidth(config),
    indexerKey: bytes * fullLayers(pattern).length * indexHeadDim,
  };
}

export function buildGenerationGraph(
  config: DsaConfig,
  weights: ModelWeights,
  pattern: Pattern,
  settings: GenerationSettings,
): ModelProto {
  const { precision, capacity } = settings;
  const graph = new ModelGraph(config, { precision, weights: "outer" });
  const spec = generationSpec(config, pattern, settings);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const angles = rotaryAngles(graph, "position_ids");
  const rowEnds = graph.node("Concat", [graph.int([0]), graph.dimension("input_ids", 0)], { axis: 0 });
  const caches: CacheContext = {
    form: settings.caches,
    capacity,
    slots: graph.cast("position_ids", OnnxType.int32),
    rowEnds: graph.cast(rowEnds, OnnxType.int32),
  };
  const embedded = embedding(graph, weights, "input_ids");
  const shared = {
    caches,
    angles: { cos: graph.cast(angles.cos, precision), sin: graph.cast(angles.sin, precision) },
  };
  const kernels = kernelsOf(settings.provider, precision, settings);
  const run = (inside: ModelGraph, way: Way): Value[] => {
    // Of what is read as it is stored, a single row reads no more than its own experts.
    const apart = isSingle(way) && settings.storedExperts === true;
    const own = apart ? { ...kernels, experts: "chosen" as const } : kernels;
    const pass = startPass({ ...shared, kernels: own, graph: inside, way }, cacheBlock);
    return allLayers(pass, weights, pattern, settings, embedded);
  };
  const [last, ...fresh] = choose(graph, waysOf(config, settings), run);
  const scores = graph.cast(logits(graph, weights, last as Value), OnnxType.float);
  for (const [index, { name, type, shape }] of spec.outputs.entries()) {
    graph.output(name, index === 0 ? scores : (fresh[index - 1] as Value), type, shape);
  }
  return graph.model(`dsa generation ${pattern}`, { architecture: config.modelType });
}

/** An `If` for each way but the last. */
function choose(graph: ModelGraph, [way, ...others]: Way[], run: (inside: ModelGraph, way: Way) => Value[]): Value[] {
  if (way === undefined) throw new RangeError("a generation graph without a way");
  if (others.length === 0) return run(graph, way);
  return graph.branch(
    wayInput(way),
    (inside) => run(inside, way),
    (inside) => choose(inside, others, run),
  );
}

/** What layers hand on to those after them, and the new rows of caches by name. */
interface Between {
  hidden: Hidden;
  selected: Value | undefined;
  fresh: Readonly<Record<string, Value>>;
}

/** The hidden states whose logits are wanted, `[wanted, hidden_size]`, and the new rows of fed caches. */
function allLayers(
  pass: Pass,
  weights: ModelWeights,
  pattern: Pattern,
  settings: GenerationSettings,
  embedded: Value,
): Value[] {
  const { graph } = pass;
  const { config } = graph;
  let between: Between = { hidden: { residual: embedded }, selected: undefined, fresh: {} };
  const layers = weights.layers.length;
  for (let from = 0; from < layers; from += layersTogether) {
    const range = { from, to: Math.min(from + layersTogether, layers) };
    const body = (inside: Pass, before: Between) => someLayers(inside, weights, pattern, settings, range, before);
    between = hasLayersInput(config) ? inBranch(pass, body, between) : body(pass, between);
  }
  const rowOf = (x: Value) => graph.node("Gather", [x, "logits_row"], { axis: 0 });
  const { residual, added } = between.hidden;
  const last = sumOf(
    graph,
    added === undefined ? { residual: rowOf(residual) } : { residual: rowOf(residual), added: rowOf(added) },
  );
  if (settings.caches === "resident") return [last];
  return [last, ...generationCaches(config, pattern).map((cache) => between.fresh[cache.fresh] as Value)];
}

/** A branch that every run takes: ONNX Runtime plans a branch in time that grows with the square of its nodes. */
function inBranch(pass: Pass, body: (inside: Pass, before: Between) => Between, before: Between): Between {
  const { graph } = pass;
  let names: string[] = [];
  const outputs = graph.branch(
    layersInput,
    (branch) => {
      const { hidden, selected, fresh } = body(within(pass, branch), before);
      const { residual, added = residual } = hidden;
      names = Object.keys(fresh).filter((name) => !(name in before.fresh));
      const rows = names.map((name) => fresh[name] as Value);
      return [residual, added, ...rows, ...(selected === undefined ? [] : [selected])];
    },
    // Never taken: anything of the same types.
    (_, count) => {
      const { residual } = before.hidden;
      const states = Array.from({ length: 2 + names.length }, () => residual);
      return count === states.length ? states : [...states, before.selected ?? pass.places];
    },
  );
  const [residual, added, ...rest] = outputs as [Value, Value, ...Value[]];
  const fresh = Object.fromEntries(names.map((name, index) => [name, rest[index] as Value]));
  return { hidden: { residual, added }, selected: rest[names.length], fresh: { ...before.fresh, ...fresh } };
}

function someLayers(
  pass: Pass,
  weights: ModelWeights,
  pattern: Pattern,
  settings: GenerationSettings,
  { from, to }: { from: number; to: number },
  before: Between,
): Between {
  const { graph } = pass;
  const { config } = graph;
  let { hidden, selected } = before;
  const fresh: Record<string, Value> = { ...before.fresh };
  for (const [place, layer] of weights.layers.slice(from, to).entries()) {
    const index = from + place;
    const names = {
      latent: { name: pastLatent(index), number: 2 * index + 1, width: latentWidth(config) },
      indexKey: { name: pastIndexerKey(index), number: 2 * index + 2, width: config.indexHeadDim },
    };
    const frame = generationFrame(pass, names);
    const entering = enterLayer(frame, layer, hidden);
    const recent = (): Value => mostRecent(graph, pass.row, graph.int(config.indexTopk));
    if (isFull(pattern, index) && layer.indexer !== undefined) {
      const { indexer } = layer;
      if (settings.switched?.includes(index) === true) {
        const earlier = frame.selects ? (selected ?? recent()) : undefined;
        const select = (inside: ModelGraph) => {
          const own = generationFrame(within(pass, inside), names);
          return { selected: lightningIndexer(own, indexer, entering), keys: own.fresh.indexKey as Value };
        };
        [fresh[newIndexerKey(index)], selected] = switchedIndexer(pass, index, select, earlier);
      } else {
        selected = lightningIndexer(frame, indexer, entering);
        fresh[newIndexerKey(index)] = frame.fresh.indexKey as Value;
      }
    }
    if (frame.selects) selected ??= recent();
    hidden = layerBody(frame, layer, entering, selected);
    fresh[newLatent(index)] = frame.fresh.latent as Value;
  }
  return { hidden, selected, fresh };
}

/**
 * The layer's new index keys and the selection after it: of its own indexer, or what was selected before. Keys that were not
 * made are zeros: a run under a pattern with this indexer does not follow one without.
 * @param before absent in runs that select nothing
 */
function switchedIndexer(
  { graph }: Pass,
  layer: number,
  select: (inside: ModelGraph) => { selected: Value | undefined; keys: Value },
  before: Value | undefined,
): [keys: Value, selected: Value | undefined] {
  const [keys, selected] = graph.branch(
    selectInput(layer),
    (inside) => {
      const own = select(inside);
      return own.selected === undefined ? [own.keys] : [own.keys, own.selected];
    },
    (inside) => {
      const shape = inside.node("Concat", [inside.dimension("input_ids", 0), inside.int([graph.config.indexHeadDim])], {
        axis: 0,
      });
      const none = inside.node("Expand", [inside.scalar(0), shape]);
      return before === undefined ? [none] : [none, before];
    },
  );
  return [keys as Value, selected];
}
