/**
 * Joins stage graphs into one model for one pattern: the indexers of Shared layers are not in it at all, neither their
 * weights nor their keys. It works on the stages' files, so that a model exported by somebody else can be joined too.
 */
import { clone, create, fromBinary } from "@bufbuild/protobuf";
import { InputError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { fullLayers, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import {
  bodyStage,
  fullModelSpec,
  type GraphSpec,
  givenSelection,
  hiddenStates,
  indexerStage,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
  type StageName,
  topkIndices,
} from "../exported/contract.ts";
import { encodeModel, GraphBuilder } from "../graph-builder.ts";
import { type GraphProto, GraphProtoSchema, type ModelProto, ModelProtoSchema } from "../onnx_pb.ts";

/** Inputs and outputs of the joined graph: those of `model.onnx` without bypass and without keys of Shared layers. */
function composedSpec(config: DsaConfig, pattern: string): GraphSpec {
  const full = fullModelSpec(config);
  const unused = new Set(
    [...pattern].flatMap((letter, layer) => (letter === "S" ? [pastIndexerKey(layer), newIndexerKey(layer)] : [])),
  );
  const keep = ({ name }: { name: string }) => !unused.has(name) && !name.startsWith("indexer_bypass.");
  return { inputs: full.inputs.filter(keep), outputs: full.outputs.filter(keep) };
}

/** Encoded graph that runs `pattern` on token ids and caches, and gives logits and new cache rows. */
export async function composeModel(
  config: DsaConfig,
  pattern: Pattern,
  stage: (name: StageName) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const indexers = fullLayers(pattern);
  const selection = (layer: number) => topkIndices(sourceLayer(pattern, layer));
  return await compose(config, `dsa ${pattern}`, composedSpec(config, pattern), indexers, selection, stage);
}

/**
 * The same without any indexer: every layer reads its selection from the input `topk_indices`, int32 `[S, K]`. What a
 * pattern takes beyond this is what its indexers take.
 */
export async function composeWithoutIndexers(
  config: DsaConfig,
  stage: (name: StageName) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const { inputs, outputs } = composedSpec(config, "S".repeat(config.numHiddenLayers));
  const spec = { inputs: [...inputs, givenSelection], outputs };
  return await compose(config, "dsa without indexers", spec, [], () => givenSelection.name, stage);
}

/**
 * @param indexers layers whose indexer is in the graph
 * @param selection the name of the selection that a layer's attention reads
 */
async function compose(
  config: DsaConfig,
  title: string,
  spec: GraphSpec,
  indexers: readonly number[],
  selection: (layer: number) => string,
  stage: (name: StageName) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const outer = new GraphBuilder();
  for (const { name, type, shape } of spec.inputs) outer.input(name, type, shape);
  const rows = "last_hidden_states";
  const start = outer.node("Sub", [outer.dimension(hiddenStates(config.numHiddenLayers), 0), "logits_to_keep"]);
  const end = outer.int([Number.MAX_SAFE_INTEGER]);
  outer.node("Slice", [hiddenStates(config.numHiddenLayers), start, end, outer.int([0])], {}, rows);
  for (const { name, type, shape } of spec.outputs) outer.output(name, name, type, shape);
  const model = outer.model(title);
  const target = model.graph ?? create(GraphProtoSchema);
  const cut = target.node.splice(0);

  const shared = { cos: "cos", sin: "sin", position_ids: "position_ids" };
  const append = async (name: StageName, names: Record<string, string>) =>
    appendStage(target, decodeStage(name, await stage(name)), `${name}/`, names);
  await append("embed", { ...shared, input_ids: "input_ids", hidden_states: hiddenStates(0) });
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const input = { ...shared, hidden_states: hiddenStates(layer) };
    if (indexers.includes(layer)) {
      await append(indexerStage(layer), {
        ...input,
        past_indexer_key: pastIndexerKey(layer),
        topk_indices: topkIndices(layer),
        indexer_key: newIndexerKey(layer),
      });
    }
    await append(bodyStage(layer), {
      ...input,
      topk_indices: selection(layer),
      past_latent: pastLatent(layer),
      next_hidden_states: hiddenStates(layer + 1),
      latent: newLatent(layer),
    });
  }
  target.node.push(...cut);
  await append("head", { hidden_states: rows, logits: "logits" });
  return encodeModel(model);
}

function decodeStage(name: StageName, bytes: Uint8Array): GraphProto {
  let model: ModelProto;
  try {
    model = fromBinary(ModelProtoSchema, bytes);
  } catch (error) {
    throw new InputError(`Stage "${name}" is not an ONNX model`, { cause: error });
  }
  if (model.graph === undefined) throw new InputError(`Stage "${name}" has no graph`);
  return model.graph;
}

/** Adds a stage's nodes and initializers under a prefix; `names` joins its inputs and outputs to the outer graph. */
function appendStage(target: GraphProto, stage: GraphProto, prefix: string, names: Record<string, string>): void {
  const rename = (name: string) => (name === "" ? "" : (names[name] ?? prefix + name));
  const renamed = renameGraph(clone(GraphProtoSchema, stage), rename);
  target.node.push(...renamed.node);
  target.initializer.push(...renamed.initializer);
}

/** Renames every tensor, in branches too: a branch reads tensors of its parent by name. */
function renameGraph(graph: GraphProto, rename: (name: string) => string): GraphProto {
  for (const node of graph.node) {
    node.input = node.input.map(rename);
    node.output = node.output.map(rename);
    node.name = rename(node.name);
    for (const { g } of node.attribute) if (g !== undefined) renameGraph(g, rename);
  }
  for (const tensor of [...graph.initializer, ...graph.input, ...graph.output]) tensor.name = rename(tensor.name);
  return graph;
}
