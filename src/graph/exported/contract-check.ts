/** Holds graphs and folders against the contract. Every refusal names the rule of docs/onnx-contract.md that is broken. */
import { fromBinary, type Message } from "@bufbuild/protobuf";
import { InputError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { Dimension } from "../graph-parts.ts";
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "../onnx_pb.ts";
import type { GraphSpec, TensorSpec } from "./contract.ts";

/** Rules by number, as docs/onnx-contract.md words them. */
const contractRules = {
  C1: "indexcache.json describes the folder and has contract_version 1",
  C2: "indexcache.json lists config.json, every graph and every weight file, and what it lists exists and has the size given there",
  C3: "config.json is of a supported architecture and agrees with indexcache.json",
  C4: "every stage is an ONNX model in stages/, and the whole model is model.onnx",
  C5: "a graph has exactly the inputs of its table, in name, type and shape",
  C6: "a graph has exactly the outputs of its table, in name, type and shape",
  C7: "external data are plain files of the folder, listed as weight_files, and lie inside them",
  C8: "graphs use the operator sets ai.onnx (up to 21) and com.microsoft, and no other",
  C9: "graphs come to an end: no Loop, Scan or SequenceMap, and no functions of their own",
} as const;

export type ContractRule = keyof typeof contractRules;

/** The folder breaks the contract. */
export function breaks(rule: ContractRule, what: string): InputError {
  return new InputError(`${what} (rule ${rule}: ${contractRules[rule]})`, {
    hint: "docs/onnx-contract.md has the rules",
  });
}

const knownDomains: ReadonlySet<string> = new Set(["", "ai.onnx", "com.microsoft"]);

/** Operators that run a graph as often as a tensor says: without end, if it says so. */
const repeating: ReadonlySet<string> = new Set(["Loop", "Scan", "SequenceMap"]);

/** Decodes and checks one graph. `weightBytes` are the sizes of the folder's weight files. */
export function checkGraph(
  bytes: Uint8Array,
  where: string,
  spec: GraphSpec,
  weightBytes: ReadonlyMap<string, number>,
): ModelProto {
  let model: ModelProto;
  try {
    model = fromBinary(ModelProtoSchema, bytes);
  } catch {
    throw breaks("C4", `${where} is not an ONNX model`);
  }
  const { graph } = model;
  if (graph === undefined) throw breaks("C4", `${where} has no graph`);
  for (const { domain, version } of model.opsetImport) {
    const known = (domain === "" || domain === "ai.onnx" ? version <= 21n : domain === "com.microsoft") === true;
    if (!known) throw breaks("C8", `${where} imports operator set "${domain || "ai.onnx"}" ${version}`);
  }
  // onnx.proto of this repository leaves these fields out; ONNX Runtime reads them.
  if (holds(model, 25)) throw breaks("C9", `${where} defines functions`);
  for (const { name, opType, domain } of nodesOf(graph)) {
    if (!knownDomains.has(domain))
      throw breaks("C8", `${where}, node ${quoted(name)} is of operator set ${quoted(domain)}`);
    if (repeating.has(opType)) throw breaks("C9", `${where}, node ${quoted(name)} is a ${opType}`);
  }
  compare("C5", where, "input", graph.input, spec.inputs);
  compare("C6", where, "output", graph.output, spec.outputs);
  for (const tensor of externalTensors(graph)) checkExternal(tensor, where, weightBytes);
  return model;
}

function compare(
  rule: "C5" | "C6",
  where: string,
  kind: string,
  found: readonly ValueInfoProto[],
  wanted: readonly TensorSpec[],
): void {
  const byName = new Map(found.map((value) => [value.name, value]));
  for (const spec of wanted) {
    const value = byName.get(spec.name);
    if (value === undefined) throw breaks(rule, `${where} has no ${kind} "${spec.name}"`);
    byName.delete(spec.name);
    const tensor = value.type?.tensorType;
    const shape = tensor?.shape?.dim.map(
      ({ value: dim }): Dimension => (dim.case === "dimValue" ? Number(dim.value) : (dim.value ?? "?")),
    );
    if (tensor?.elemType !== spec.type || shape === undefined || !sameShape(shape, spec.shape)) {
      throw breaks(
        rule,
        `${where}, ${kind} "${spec.name}" is ${describe(tensor?.elemType, shape)}; it must be ${describe(spec.type, spec.shape)}`,
      );
    }
  }
  const [extra] = byName.keys();
  if (extra !== undefined) throw breaks(rule, `${where} has an unknown ${kind} "${extra}"`);
}

/** Fixed sizes must agree; a size that is known at run time only may have any name. */
function sameShape(found: Dimension[], wanted: Dimension[]): boolean {
  return (
    found.length === wanted.length &&
    wanted.every((size, axis) => (typeof size === "number" ? found[axis] === size : typeof found[axis] === "string"))
  );
}

function describe(type: number | undefined, shape: Dimension[] | undefined): string {
  const name = Object.entries(OnnxType).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
  return `${name} [${shape?.join(", ") ?? "unknown shape"}]`;
}

/** Nodes of the graph and of every graph inside it. */
function* nodesOf(graph: GraphProto): Generator<NodeProto> {
  for (const node of graph.node) {
    yield node;
    for (const { g } of node.attribute) if (g !== undefined) yield* nodesOf(g);
  }
}

/** Does a message have a field of this number that its schema here does not know? */
function holds(message: Message, field: number): boolean {
  return message.$unknown?.some(({ no }) => no === field) === true;
}

/** Initializers with external data, of branches too. */
export function* externalTensors(graph: GraphProto | undefined): Generator<TensorProto> {
  if (graph === undefined) return;
  for (const tensor of graph.initializer) if (tensor.externalData.length > 0) yield tensor;
  for (const node of graph.node) {
    for (const { g } of node.attribute) if (g !== undefined) yield* externalTensors(g);
  }
}

function checkExternal(tensor: TensorProto, where: string, weightBytes: ReadonlyMap<string, number>): void {
  const entries = new Map(tensor.externalData.map(({ key, value }) => [key, value]));
  const file = entries.get("location") ?? "";
  const size = weightBytes.get(file);
  if (size === undefined) {
    throw breaks("C7", `${where}, weight "${tensor.name}" lies in "${file}", which is no weight file of the folder`);
  }
  const offset = Number(entries.get("offset") ?? "0");
  const length = Number(entries.get("length") ?? String(size - offset));
  if (!(offset >= 0 && length >= 0 && offset + length <= size)) {
    throw breaks(
      "C7",
      `${where}, weight "${tensor.name}" reaches to byte ${offset + length} of "${file}", which has ${size}`,
    );
  }
}
