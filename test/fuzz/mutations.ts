/** What is done to an input that was good: to its bytes, or to one value of its JSON. Every mutation is plain data. */
import fc from "fast-check";

/** JSON tokens that no honest file has in the place of what stood there. `@` begins what is spelled out in `token()`. */
const tokens = [
  ...["null", "true", '""', '"x"', "-1", "0", "1", "2", "0.5", "1e9", "4294967296", "9007199254740993", "1e308"],
  ...["-1e308", "1e-320", "NaN", "Infinity", "1e999", "[]", "{}", "[null]", '{"__proto__":{"polluted":1}}'],
  ...['"__proto__"', '"constructor"', '"../../etc/passwd"', '"\\u0000"', '"\\u001b[2J\\u001b]0;x\\u0007"', '"\\ud800"'],
  ...['"a\\nb"', '"%s%n"', '"\u202egnp"', "@deep", "@deepObject", "@long", "@manyNumbers", "@digits"],
];

function token(name: string): string {
  switch (name) {
    case "@deep":
      return `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
    case "@deepObject":
      return `${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`;
    case "@long":
      return `"${"long\\u001b ".repeat(20_000)}"`;
    case "@manyNumbers":
      return `[${"1,".repeat(50_000)}1]`;
    case "@digits":
      return "9".repeat(400);
    default:
      return name;
  }
}

const names = ["__proto__", "constructor", "toString", "", "x", "\u001b[31m", "a".repeat(3000), "loss", "0"];

export type ByteMutation =
  | { kind: "flip"; at: number; bit: number }
  | { kind: "cut"; at: number }
  | { kind: "remove"; at: number; length: number }
  | { kind: "repeat"; at: number; length: number }
  | { kind: "zero"; at: number; length: number }
  | { kind: "insert"; at: number; text: string };

export type JsonMutation =
  | { kind: "replace"; node: number; token: string }
  | { kind: "drop"; node: number }
  | { kind: "double"; node: number }
  | { kind: "rename"; node: number; name: string };

const place = fc.nat({ max: 2 ** 30 });
const length = fc.nat({ max: 200 }).map((count) => count + 1);
const inserts = [
  "\0",
  "\u001b[2J",
  "\n",
  '"',
  "{",
  "]",
  ",",
  "\\",
  "\r",
  "\u2028",
  "é",
  "\ufeff",
  "𝔽",
  "9",
  "-",
  "x".repeat(5000),
];

export const byteMutation: fc.Arbitrary<ByteMutation> = fc.oneof(
  fc.record({ kind: fc.constant("flip" as const), at: place, bit: fc.nat({ max: 7 }) }),
  fc.record({ kind: fc.constant("cut" as const), at: place }),
  fc.record({ kind: fc.constant("remove" as const), at: place, length }),
  fc.record({ kind: fc.constant("repeat" as const), at: place, length }),
  fc.record({ kind: fc.constant("zero" as const), at: place, length }),
  fc.record({ kind: fc.constant("insert" as const), at: place, text: fc.constantFrom(...inserts) }),
);

export const jsonMutation: fc.Arbitrary<JsonMutation> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("replace" as const), node: place, token: fc.constantFrom(...tokens) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("drop" as const), node: place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("double" as const), node: place }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("rename" as const), node: place, name: fc.constantFrom(...names) }),
  },
);

export function mutateBytes(bytes: Buffer, mutation: ByteMutation): Buffer {
  const at = bytes.length === 0 ? 0 : mutation.at % bytes.length;
  const before = bytes.subarray(0, at);
  switch (mutation.kind) {
    case "flip": {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] ?? 0) ^ (1 << mutation.bit);
      return copy;
    }
    case "cut":
      return Buffer.from(before);
    case "remove":
      return Buffer.concat([before, bytes.subarray(at + mutation.length)]);
    case "repeat": {
      const part = bytes.subarray(at, at + mutation.length);
      return Buffer.concat([before, part, bytes.subarray(at)]);
    }
    case "zero":
      return Buffer.from(bytes).fill(0, at, Math.min(at + mutation.length, bytes.length));
    case "insert":
      return Buffer.concat([before, Buffer.from(mutation.text), bytes.subarray(at)]);
  }
}

interface Node {
  parent: Record<string, unknown> | unknown[];
  key: string | number;
  /** Keys from the root. */
  path: (string | number)[];
}

function nodesOf(value: unknown, path: (string | number)[] = [], found: Node[] = []): Node[] {
  if (typeof value !== "object" || value === null) return found;
  const parent = value as Record<string, unknown> | unknown[];
  for (const [name, inner] of Object.entries(parent)) {
    const key = Array.isArray(parent) ? Number(name) : name;
    found.push({ parent, key, path: [...path, key] });
    nodesOf(inner, [...path, key], found);
  }
  return found;
}

const mark = "@@mutated@@";

/** The text of a JSON document with one value changed; where it was, and the token in its place. */
export function mutateJson(
  text: string,
  mutation: JsonMutation,
): { text: string; path: (string | number)[]; token?: string } {
  const root = JSON.parse(text) as unknown;
  const nodes = nodesOf(root);
  // Large arrays would get nearly all mutations: a node is chosen by its place in the tree's outline first.
  const outline = [
    ...new Map(
      nodes.map((node) => [node.path.map((key) => (typeof key === "number" ? "#" : key)).join("/"), node]),
    ).values(),
  ];
  const { parent, key, path } = outline[mutation.node % outline.length] as Node;
  const old = (parent as Record<string | number, unknown>)[key];
  const written = (): string => JSON.stringify(root);
  switch (mutation.kind) {
    case "replace":
      set(parent, key, mark);
      return { text: written().replace(`"${mark}"`, () => token(mutation.token)), path, token: mutation.token };
    case "drop":
      if (Array.isArray(parent)) parent.splice(key as number, 1);
      else delete parent[key];
      return { text: written(), path };
    case "double":
      if (Array.isArray(parent)) parent.splice(key as number, 0, structuredClone(old));
      else set(parent, `${key}`, mark);
      // The same key twice: JSON takes the last.
      return { text: written().replace(`"${mark}"`, () => `null,${JSON.stringify(key)}:${JSON.stringify(old)}`), path };
    case "rename":
      if (Array.isArray(parent)) parent.reverse();
      else {
        delete parent[key];
        set(parent, mark, old);
      }
      return { text: written().replace(`"${mark}"`, () => JSON.stringify(mutation.name)), path };
  }
}

function set(parent: Record<string, unknown> | unknown[], key: string | number, value: unknown): void {
  Object.defineProperty(parent, key, { value, enumerable: true, configurable: true, writable: true });
}
