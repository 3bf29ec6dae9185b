/** `indexcache kit`: writes what runs inside the engines, and says how to start them with it. */
import { copyFile, readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import type { Command } from "commander";
import { makeFolder, writeFailure } from "../../base/files.ts";
import { quoteWord } from "../../base/shell.ts";
import { readModelConfig } from "../../checkpoint/config/config-json.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { type Flags, option } from "../arguments/declared-option.ts";
import { kitFolder } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";

const options = [
  option("-m, --model <model>", "what the server will serve: a folder, or a name that the engine knows"),
  option("--port <n>", "port of the server", "8000"),
  option("--json", "print the commands as JSON"),
] as const;

const help = `
FOLDER gets a package of Python (standard library and the engine only) that nobody has to install: PYTHONPATH names FOLDER.
It lets a running server switch layers between Full and Shared, count what runs, and say what it is. Development mode gives
whoever reaches the server the right to run code there: keep it on loopback (docs/serving.md).

Examples:
  $ indexcache kit ./kit
  $ indexcache kit ./kit -m ./GLM-5.1`;

/** Folders of the kit: the package, and what SGLang finds it by. */
const parts = ["indexcache_live", "indexcache_live-1.dist-info"] as const;

export function addKitCommand(program: Command): void {
  const command = program
    .command("kit")
    .description("Write the Python kit for vLLM and SGLang, and the commands that start a server with it")
    .argument("<folder>", "where the kit goes");
  addWork(command, { options, help }, writeKit);
}

async function writeKit(folder: string, flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  const model = flags.model ?? "MODEL";
  const notes = flags.model === undefined ? [] : await notesOn(flags.model);
  try {
    for (const part of parts) await copyPart(part, folder);
  } catch (error) {
    throw writeFailure(`Cannot write the kit to "${folder}"`, error);
  }
  const commands = serveCommands(resolve(folder), model, flags.port);
  for (const note of notes) terminal.warn(note);
  if (flags.json !== true) terminal.note(`written: ${parts.map((part) => join(folder, part)).join(", ")}`);
  terminal.answer(
    { folder, ...commands },
    () =>
      `vLLM\n${commands.vllm}\n\nSGLang\n${commands.sglang}\n\n` +
      "Add what the model needs besides (--tensor-parallel-size 8, --max-model-len, a quantization). Then:\n" +
      `indexcache server http://127.0.0.1:${flags.port}`,
  );
}

async function copyPart(part: string, folder: string): Promise<void> {
  const from = join(kitFolder, part);
  const to = join(folder, part);
  await makeFolder(to, { what: `Cannot write the kit to "${folder}"` });
  for (const name of await readdir(from)) {
    // Not what Python has compiled beside it.
    if ((await stat(join(from, name))).isFile()) await copyFile(join(from, name), join(to, basename(name)));
  }
}

/** What the checkpoint says that matters before it is served for a search. */
async function notesOn(text: string): Promise<string[]> {
  const path = await findModel(text).catch(() => undefined);
  const there = path !== undefined && (await stat(join(path, "config.json")).catch(() => undefined)) !== undefined;
  // A name that only the engine knows: it fetches the model itself.
  if (!there) return [];
  const config = await readModelConfig(path);
  if (!config.indexerLayers.includes("S")) return [];
  return [
    `config.json makes ${[...config.indexerLayers].filter((letter) => letter === "S").length} layers Shared from the start: those have no indexer on the server and stay Shared`,
  ];
}

/** The commands, for a shell. */
export function serveCommands(kit: string, model: string, port: string): { vllm: string; sglang: string } {
  const path = `PYTHONPATH=${quoteWord(kit)}`;
  const name = quoteWord(model);
  return {
    vllm: [
      `VLLM_SERVER_DEV_MODE=1 ${path} \\`,
      `vllm serve ${name} --host 127.0.0.1 --port ${port} \\`,
      "  --enforce-eager --no-enable-prefix-caching --max-num-batched-tokens 8192 \\",
      `  --hf-overrides '{"head_dtype": "float32"}' \\`,
      "  --worker-extension-cls indexcache_live.vllm.PatternExtension",
    ].join("\n"),
    sglang: [
      `SGLANG_PLUGINS=indexcache ${path} \\`,
      `python -m sglang.launch_server --model-path ${name} --host 127.0.0.1 --port ${port} \\`,
      "  --disable-decode-cuda-graph --disable-prefill-cuda-graph --disable-radix-cache \\",
      "  --enable-fp32-lm-head",
    ].join("\n"),
  };
}
