/**
 * A graph without its accidents: names of inner values, the order of nodes and of initializers. Two graphs have the same
 * canonical form if they compute the same things from the same inputs and weights with the same nodes, as often.
 */
import { createHash } from "node:crypto";
import type { AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto } from "../../src/graph/onnx_pb.ts";

/** A line for each node of the graph and of the graphs inside it, inputs and outputs included, sorted. */
export function canonicalLines(model: ModelProto): string[] {
  const lines: string[] = [];
  canonicalGraph(model.graph as GraphProto, new Map(), lines, "");
  return lines.sort();
}

/** One hash of all lines. */
export function graphDigest(model: ModelProto): string {
  return short(canonicalLines(model).join("\n"));
}

function short(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** Says what every value is made of, by name, beginning with what the graphs around this one know. */
function canonicalGraph(graph: GraphProto, outside: Map<string, string>, lines: string[], path: string): string {
  const known = new Map(outside);
  const inputs = graph.input.map(({ name, type }, index) => {
    const tensor = type?.tensorType;
    const dims = tensor?.shape?.dim.map(({ value }) => String(value.value ?? "?")).join();
    const title = path === "" ? name : `input ${index}`;
    known.set(name, short(`${path} ${title}`));
    return `${title} ${tensor?.elemType} [${dims}]`;
  });
  for (const tensor of graph.initializer) known.set(tensor.name, short(describeTensor(tensor)));
  for (const { values, indices, dims } of graph.sparseInitializer) {
    const words = [values, indices].map((tensor) => short(describeTensor(tensor as TensorProto)));
    known.set(values?.name ?? "", short(`sparse ${words.join(" ")} [${dims.join()}]`));
  }
  const waiting = new Set(graph.node);
  const own: string[] = [];
  const isKnown = (name: string): boolean => name === "" || known.has(name);
  while (waiting.size > 0) {
    const before = waiting.size;
    for (const node of waiting) {
      if (![...node.input, ...capturedBy(node)].every(isKnown)) continue;
      waiting.delete(node);
      const from = node.input.map((name) => (name === "" ? "-" : known.get(name))).join(" ");
      const attributes = node.attribute.map((each) => describeAttribute(each, known, lines, path)).sort();
      const words = `${node.domain}.${node.opType}(${attributes.join(", ")}) ${from}`;
      own.push(`${path}${short(words)} = ${words}`);
      for (const [index, name] of node.output.entries()) if (name !== "") known.set(name, short(`${words} ${index}`));
    }
    if (waiting.size === before) throw new Error(`${waiting.size} nodes of ${graph.name} have no inputs`);
  }
  const outputs = graph.output.map(({ name, type }, index) => {
    const tensor = type?.tensorType;
    const dims = tensor?.shape?.dim.map(({ value }) => String(value.value ?? "?")).join();
    return `${path === "" ? name : `output ${index}`} ${tensor?.elemType} [${dims}] = ${known.get(name)}`;
  });
  const all = [...inputs, ...outputs, ...own].sort();
  lines.push(...all);
  return short(all.join("\n"));
}

/** Values of the graphs around a node's inner graphs that those read. */
function capturedBy(node: NodeProto): string[] {
  return node.attribute.flatMap(({ g }) => (g === undefined ? [] : captured(g)));
}

function captured(graph: GraphProto): string[] {
  const made = new Set([
    ...graph.input.map(({ name }) => name),
    ...graph.initializer.map(({ name }) => name),
    ...graph.node.flatMap(({ output }) => output),
  ]);
  const read = [
    ...graph.node.flatMap((node) => [...node.input, ...capturedBy(node)]),
    ...graph.output.map((o) => o.name),
  ];
  return read.filter((name) => name !== "" && !made.has(name));
}

function describeTensor({ dims, dataType, rawData, externalData }: TensorProto): string {
  const where = externalData.map(({ key, value }) => `${key}=${value}`).join();
  return `tensor ${dataType} [${dims.join()}] ${where} ${createHash("sha256").update(rawData).digest("hex")}`;
}

function describeAttribute(each: AttributeProto, known: Map<string, string>, lines: string[], path: string): string {
  const { name, type, f, i, s, ints, g } = each;
  if (g !== undefined) return `${name}=${canonicalGraph(g, known, lines, `${path}${name}/`)}`;
  return `${name}=${type}:${f}:${i}:${new TextDecoder().decode(s)}:${ints.join()}`;
}
