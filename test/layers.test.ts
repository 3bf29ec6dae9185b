/**
 * The direction of dependency, as docs/design.md draws it: which rooms of `src` a room may import, and which packages belong
 * to one room alone. A new arrow is a decision, made here.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const source = fileURLToPath(new URL("../src", import.meta.url));

/** Rooms that a room may import, itself always. */
const rooms: Record<string, readonly string[]> = {
  base: [],
  pattern: ["base"],
  formats: ["base", "pattern"],
  checkpoint: ["base", "pattern", "formats"],
  engines: ["base", "pattern", "formats", "checkpoint"],
  graph: ["base", "pattern", "formats", "checkpoint"],
  runtime: ["base", "pattern", "formats", "checkpoint", "graph"],
  calibration: ["base", "formats", "checkpoint"],
  search: ["base", "pattern", "formats"],
  eval: ["base", "pattern", "formats", "checkpoint", "runtime"],
  analyze: ["base", "pattern", "formats", "runtime"],
  distill: ["base", "pattern", "formats", "checkpoint", "engines", "graph", "runtime"],
  live: ["base", "pattern", "runtime"],
  serve: ["base", "pattern", "formats", "checkpoint", "graph", "runtime"],
  report: [
    ...["base", "pattern", "formats", "checkpoint", "engines", "graph", "runtime"],
    ...["search", "eval", "analyze", "distill"],
  ],
  tui: ["base", "search", "eval", "report"],
  cli: [
    ...["base", "pattern", "formats", "checkpoint", "engines", "graph", "runtime", "calibration", "search"],
    ...["eval", "analyze", "distill", "live", "serve", "report", "tui"],
  ],
};

/** Wings of `src/runtime`, lowest first: a wing may import those before it. */
const wings = ["process", "session", "device", "stages", "loss", "training", "generate"];

/** Packages that are one room's business. */
const packages: Record<string, string> = {
  commander: "cli",
  ink: "tui",
  react: "tui",
  "onnxruntime-node": "runtime",
  "@bufbuild/protobuf": "graph",
  hono: "serve",
  "@hono/node-server": "serve",
  "prom-client": "serve",
  undici: "live",
};

interface Import {
  from: string;
  /** Path in `src`, or a package's name. */
  to: string;
  isPackage: boolean;
}

/** Static and dynamic imports, types too, as the formatter writes them. */
const importText = /^(?:import|export)\b[^;"]*?"([^"\n]+)"|\bimport\(\s*"([^"\n]+)"/gm;

function importsOf(path: string): Import[] {
  const from = relative(source, path);
  const names = [...readFileSync(path, "utf8").matchAll(importText)].map(([, fixed, late]) => fixed ?? late ?? "");
  return names.map((name) =>
    name.startsWith(".")
      ? { from, to: relative(source, resolve(dirname(path), name)), isPackage: false }
      : { from, to: /^(@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name, isPackage: true },
  );
}

const paths = readdirSync(source, { recursive: true, encoding: "utf8" }).map((path) => join(source, path));
const files = paths.filter((path) => /\.tsx?$/.test(path));
const imports = files.flatMap(importsOf);
const room = (path: string) => path.split(sep)[0] as string;
const wing = (path: string) => (path.split(sep).length > 2 ? (path.split(sep)[1] as string) : undefined);

/** What a rule refuses, one line each. */
function arrowsAgainst(rules: typeof rooms, found: readonly Import[]): string[] {
  return found
    .filter(
      ({ isPackage, from, to }) => !isPackage && room(from) !== room(to) && !rules[room(from)]?.includes(room(to)),
    )
    .map(({ from, to }) => `${from} imports ${to}`);
}

test("there are files to look at", () => {
  expect(imports.length).toBeGreaterThan(1000);
  expect([...new Set(files.map((path) => room(relative(source, path))))].sort()).toEqual(Object.keys(rooms).sort());
});

test("rooms import only what docs/design.md allows", () => {
  expect(arrowsAgainst(rooms, imports)).toEqual([]);
});

test("an arrow that is not allowed is found", () => {
  expect(arrowsAgainst({ ...rooms, runtime: ["base"] }, imports)).toContainEqual(
    expect.stringMatching(/^runtime\/.* imports graph\//),
  );
});

test("each wing of runtime imports those before it", () => {
  const upward = imports.filter(({ from, to, isPackage }) => {
    if (isPackage || room(from) !== "runtime" || room(to) !== "runtime") return false;
    const target = wing(to);
    return target !== undefined && wings.indexOf(target) > wings.indexOf(wing(from) ?? "");
  });
  expect(upward.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  const known = new Set(
    files.map((path) => relative(source, path)).flatMap((path) => (room(path) === "runtime" ? [wing(path)] : [])),
  );
  expect([...known].filter((name) => name !== undefined).sort()).toEqual([...wings].sort());
});

/** Files that import each other in a circle, types too: the first circle that each file can be reached from. */
function circles(found: readonly Import[]): string[] {
  const targets = new Map<string, string[]>();
  for (const { from, to, isPackage } of found) if (!isPackage) targets.set(from, [...(targets.get(from) ?? []), to]);
  const finished = new Set<string>();
  const open: string[] = [];
  const circular: string[] = [];
  const visit = (file: string): void => {
    if (finished.has(file)) return;
    if (open.includes(file)) {
      circular.push([...open.slice(open.indexOf(file)), file].join(" -> "));
      return;
    }
    open.push(file);
    for (const target of targets.get(file) ?? []) visit(target);
    open.pop();
    finished.add(file);
  };
  for (const file of targets.keys()) visit(file);
  return circular;
}

test("no files import each other in a circle", () => {
  expect(circles(imports)).toEqual([]);
  const back = { from: "base/errors.ts", to: "cli/main.ts", isPackage: false };
  expect(circles([...imports, back])).toContainEqual(expect.stringContaining("base/errors.ts -> cli/main.ts"));
});

test.each(Object.entries(packages))("only its own room imports %s (%s)", (name, owner) => {
  const users = new Set(imports.filter(({ isPackage, to }) => isPackage && to === name).map(({ from }) => room(from)));
  expect([...users]).toEqual([owner]);
});

describe("no folder has more than 25 entries", () => {
  const folders = new Map<string, number>();
  for (const path of paths) {
    const folder = relative(source, dirname(path));
    if (folder !== "") folders.set(folder, (folders.get(folder) ?? 0) + 1);
  }
  test.each([...folders.keys()])("%s", (folder) => {
    expect(folders.get(folder)).toBeLessThanOrEqual(25);
  });
});
