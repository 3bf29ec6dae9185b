/** Checkpoints: config.json, the header and the index of safetensors, folders that were exported. */
import { cpSync, readdirSync, rmSync } from "node:fs";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { readModelConfig } from "../../../src/checkpoint/config/config-json.ts";
import type { DsaConfig } from "../../../src/checkpoint/config/model-config.ts";
import { openTensors } from "../../../src/checkpoint/shards.ts";
import { exportModel } from "../../../src/graph/exported/export.ts";
import { stageNames } from "../../../src/graph/frames/stages.ts";
import { openModel, verifyWeights } from "../../../src/graph/model-folder.ts";
import { type FuzzClass, fuzzClass } from "../fuzz-class.ts";
import { byteMutation, type JsonMutation, jsonMutation, mutateBytes, mutateJson } from "../mutations.ts";

const fixtures = join(import.meta.dirname, "..", "..", "fixtures");

/** The numbers of a config without what is only said of it. */
function numbersOf({ notes: _notes, name: _name, ...numbers }: DsaConfig): string {
  return JSON.stringify(numbers);
}

/** The first number that is none, and fields that a JSON of the same shape could not hold. */
function notFinite(value: unknown, path = ""): string | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? undefined : `${path} is ${value}`;
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, inner] of Object.entries(value)) {
    const found = notFinite(inner, `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

const kindOf = (value: unknown): string => (value === null ? "null" : Array.isArray(value) ? "array" : typeof value);

/** Of another kind than what stood there, the config must be as if the field were not there, or refused. */
function configClass(fixture: string): FuzzClass {
  return fuzzClass<JsonMutation>({
    name: `config.json of ${fixture}`,
    mutation: jsonMutation,
    runs: 25,
    async prepare(folder) {
      cpSync(join(fixtures, fixture), folder, { recursive: true });
      const path = join(folder, "config.json");
      const text = await readFile(path, "utf8");
      const original = numbersOf(await readModelConfig(folder));
      const numbersWith = async (changed: string): Promise<string | undefined> => {
        await writeFile(path, changed);
        return readModelConfig(folder).then(numbersOf, () => undefined);
      };
      return async (mutation) => {
        const { text: changed, path: where } = mutateJson(text, mutation);
        await writeFile(path, changed);
        const { config } = await openModel(folder);
        const wrong = notFinite(config);
        if (wrong !== undefined) return wrong;
        const accepted = numbersOf(config);
        const [field] = where;
        if (where.length !== 1 || mutation.kind !== "replace" || accepted === original) return undefined;
        const before = (JSON.parse(text) as Record<string, unknown>)[field as string];
        const after = (JSON.parse(changed) as Record<string, unknown>)[field as string];
        if (kindOf(before) === kindOf(after)) return undefined;
        // transformers takes null for false.
        const plain = typeof before === "boolean" && after === null ? { [field as string]: false } : {};
        const without = JSON.parse(text) as Record<string, unknown>;
        delete without[field as string];
        if (accepted === (await numbersWith(JSON.stringify({ ...without, ...plain })))) return undefined;
        // What a field allows in several forms (eos_token_id: one or a list) is read as what it says.
        if (after !== null && accepted.includes(JSON.stringify(after).replace(/^\[|\]$/g, ""))) return undefined;
        return `${field} of another kind (${mutation.token}) is read as something`;
      };
    },
  });
}

const safetensors = fuzzClass({
  name: "safetensors header",
  mutation: fc.oneof(fc.record({ json: jsonMutation }), fc.record({ bytes: byteMutation, inHeader: fc.boolean() })),
  runs: 40,
  async prepare(folder) {
    cpSync(join(fixtures, "glm-groups"), folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const bytes = await readFile(path);
    const end = 8 + Number(bytes.readBigUInt64LE());
    const header = bytes.subarray(8, end).toString("utf8");
    const hash = async (): Promise<string> => (await (await openModel(folder)).identity()).weightHash;
    const original = await hash();
    return async (mutation) => {
      const changed =
        "json" in mutation
          ? withHeader(bytes.subarray(end), mutateJson(header, mutation.json).text)
          : mutation.inHeader
            ? Buffer.concat([mutateBytes(bytes.subarray(0, end), mutation.bytes), bytes.subarray(end)])
            : mutateBytes(bytes, mutation.bytes);
      await writeFile(path, changed);
      const model = await openModel(folder);
      const weights = await model.weights();
      for (const name of stageNames(model.config)) await model.stage(name);
      if (typeof weights !== "object") return "no weights";
      // Whatever is accepted is another model to every journal and result.
      if (!changed.equals(bytes) && (await hash()) === original) return "changed weights have the same hash";
      return undefined;
    };
  },
});

function withHeader(data: Buffer, header: string): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

const index = fuzzClass({
  name: "safetensors index",
  mutation: fc.oneof(fc.record({ json: jsonMutation }), fc.record({ bytes: byteMutation })),
  runs: 30,
  async prepare(folder) {
    cpSync(join(fixtures, "glm-shared"), folder, { recursive: true });
    const path = join(folder, "model.safetensors.index.json");
    const bytes = await readFile(path);
    const places = async (): Promise<string> =>
      JSON.stringify([...(await openTensors(folder)).tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1)));
    const original = await places();
    return async (mutation) => {
      const changed =
        "json" in mutation ? mutateJson(bytes.toString(), mutation.json).text : mutateBytes(bytes, mutation.bytes);
      await writeFile(path, changed);
      await openModel(folder);
      return (await places()) === original ? undefined : "tensors are read from elsewhere";
    };
  },
});

const exported = fuzzClass({
  name: "exported folder",
  mutation: fc.oneof(
    { weight: 2, arbitrary: fc.record({ manifest: jsonMutation }) },
    { weight: 3, arbitrary: fc.record({ file: fc.nat({ max: 10_000 }), bytes: byteMutation }) },
    { weight: 1, arbitrary: fc.record({ file: fc.nat({ max: 10_000 }), swapWith: fc.nat({ max: 10_000 }) }) },
    { weight: 1, arbitrary: fc.record({ file: fc.nat({ max: 10_000 }), unlisted: fc.constant(true) }) },
  ),
  runs: 40,
  async prepare(folder) {
    process.env.XDG_CACHE_HOME = join(folder, "cache");
    const source = join(folder, "source");
    const target = join(folder, "exported");
    const kept = join(folder, "kept");
    cpSync(join(fixtures, "glm-groups"), source, { recursive: true });
    await exportModel(source, target);
    cpSync(target, kept, { recursive: true });
    const files = readdirSync(kept, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(kept.length + 1))
      .sort();
    const name = "indexcache.json";
    const manifest = await readFile(join(kept, name), "utf8");
    return async (mutation) => {
      const changed: string[] = [];
      const put = async (file: string, content: string | Buffer): Promise<void> => {
        changed.push(file);
        await writeFile(join(target, file), content);
      };
      try {
        let file = name;
        if ("manifest" in mutation) {
          const { text, path } = mutateJson(manifest, mutation.manifest);
          await put(name, text);
          await readWholeFolder(target);
          if (path[0] === "tool" || sameContent(text, manifest)) return undefined;
          return `manifest changed at ${path.join(".")}`;
        }
        file = files[mutation.file % files.length] as string;
        const old = await readFile(join(kept, file));
        if ("unlisted" in mutation) {
          if (file === name) return undefined;
          const listed = JSON.parse(manifest) as { files: Record<string, unknown> };
          delete listed.files[file];
          await put(name, JSON.stringify(listed));
          await put(file, Buffer.concat([old, Buffer.from(" ")]));
        } else {
          const next =
            "bytes" in mutation
              ? mutateBytes(old, mutation.bytes)
              : await readFile(join(kept, files[mutation.swapWith % files.length] as string));
          if (next.equals(old)) return undefined;
          await put(file, next);
          if (file === name) {
            await readWholeFolder(target);
            return sameContent(next.toString(), manifest) ? undefined : "a manifest of other content is accepted";
          }
        }
        await readWholeFolder(target);
        return `${file} is not what was exported`;
      } finally {
        for (const file of changed) await copyFile(join(kept, file), join(target, file));
        for (const file of readdirSync(target))
          if (!files.some((known) => known.split("/")[0] === file)) rmSync(join(target, file), { recursive: true });
      }
    };
  },
});

async function readWholeFolder(target: string): Promise<void> {
  const model = await openModel(target);
  await verifyWeights(model);
  for (const stage of stageNames(model.config)) await model.stage(stage);
  await model.weights();
}

/** Equal but for what made it; keys that were written twice count once. */
function sameContent(left: string, right: string): boolean {
  const parse = (text: string): unknown => {
    const { tool: _tool, ...rest } = JSON.parse(text) as Record<string, unknown>;
    return rest;
  };
  return JSON.stringify(sorted(parse(left))) === JSON.stringify(sorted(parse(right)));
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}

export const checkpointClasses = [configClass("glm-shared"), configClass("v32-fp8"), safetensors, index, exported];
