/** One meaning per name: types that src exports, and files in two folders. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { expect, test } from "vitest";

const source = join(import.meta.dirname, "..", "src");
const files = readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((path) => /\.tsx?$/.test(path) && !path.endsWith("onnx_pb.ts"))
  .map((path) => join(source, path));

/** Names that stand at several places, with the places. */
function repeatedIn(found: readonly (readonly [name: string, path: string])[]): string[] {
  const places = new Map<string, string[]>();
  for (const [name, path] of found) places.set(name, [...(places.get(name) ?? []), relative(source, path)]);
  return [...places]
    .filter(([, paths]) => paths.length > 1)
    .map(([name, paths]) => `${name}: ${paths.sort().join(", ")}`);
}

test("no two exported types have one name", () => {
  const exported = /^export (?:abstract )?(?:type|interface|class|enum) (\w+)/gm;
  const found = files.flatMap((path) =>
    [...readFileSync(path, "utf8").matchAll(exported)].map(([, name = ""]) => [name, path] as const),
  );
  expect(found.length).toBeGreaterThan(500);
  expect(repeatedIn(found)).toEqual([]);
});

/** Files of one name in several folders that are about one thing: each room's part of it. */
const sameThing = [
  // A command, and what it runs or prints.
  ...["distill-plan", "export", "inspect", "pattern", "profile", "search", "search-plan", "version"],
  // The same part of each suite.
  ...["options", "records", "scoring", "suite", "tasks"],
  // An engine: what it serves, how it is spoken to, its routes.
  ...["sglang", "vllm"],
  // Numbers for people, of one room and of all.
  ...["progress", "quantities"],
];

test("files of one name are about one thing", () => {
  const found = files.map((path) => [basename(path).replace(/\.tsx?$/, ""), path] as const);
  expect(repeatedIn(found).filter((line) => !sameThing.includes(line.split(":")[0] ?? ""))).toEqual([]);
});
