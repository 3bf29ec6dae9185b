/**
 * Scripts of tools/ import the compiled program, which no compiler checks. A file of yesterday's build that is still in dist/
 * would hide that its source is gone, so sources are asked for too.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");

interface Import {
  script: string;
  names: string[];
  /** From the root. */
  from: string;
}

/** Static imports from relative paths, and dynamic ones, whose names are not looked at. */
function importsOf(script: string): Import[] {
  const text = readFileSync(join(root, script), "utf8");
  const found = [...text.matchAll(/^import\s+(?:\{([^}]*)\}\s+from\s+)?"(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm)];
  return found.map(([, names = "", fixed, late]) => ({
    script,
    names: [...names.matchAll(/(\w+)(?:\s+as\s+\w+)?/g)].map(([, name]) => name as string),
    from: relative(root, resolve(root, dirname(script), fixed ?? late ?? "")),
  }));
}

/** `dist/a/b.js` is made of `src/a/b.ts` or `.tsx`. */
function sourceOf(path: string): string | undefined {
  const sources = path.startsWith("dist/")
    ? [".ts", ".tsx"].map((ending) => path.replace(/^dist/, "src").replace(/\.js$/, ending))
    : [path];
  return sources.find((source) => existsSync(join(root, source)));
}

const scripts = readdirSync(join(root, "tools"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".js"))
  .map((path) => join("tools", path));
const imports = scripts.flatMap(importsOf);

test("scripts import files that have a source", () => {
  expect(imports.filter(({ from }) => from.startsWith("dist/")).length).toBeGreaterThan(100);
  expect(
    imports.filter(({ from }) => sourceOf(from) === undefined).map(({ script, from }) => `${script} imports ${from}`),
  ).toEqual([]);
});

test("scripts import names that the program exports", async () => {
  const missing: string[] = [];
  for (const { script, names, from } of imports) {
    if (!from.startsWith("dist/")) continue;
    const exported: object = await import(pathToFileURL(join(root, from)).href);
    missing.push(...names.filter((name) => !(name in exported)).map((name) => `${script} imports ${name} of ${from}`));
  }
  expect(missing).toEqual([]);
});
