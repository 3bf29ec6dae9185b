/** What lies where a file should: folders, pipes, devices, links that lead nowhere, in circles or to devices. */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { runCaptured } from "../captured-command.ts";
import { fuzzClass } from "../fuzz-class.ts";

const fixture = join(import.meta.dirname, "..", "..", "fixtures", "glm-shared");

const things: Record<string, (path: string) => void> = {
  folder: (path) => mkdirSync(path),
  pipe: (path) => execFileSync("mkfifo", [path]),
  "link to /dev/zero": (path) => symlinkSync("/dev/zero", path),
  "link to /dev/null": (path) => symlinkSync("/dev/null", path),
  "link to /dev/stdin": (path) => symlinkSync("/dev/tty", path),
  "link to nothing": (path) => symlinkSync("nothing", path),
  "link to itself": (path) => symlinkSync(path, path),
  "empty file": (path) => writeFileSync(path, ""),
  "file of NUL bytes": (path) => writeFileSync(path, Buffer.alloc(100_000)),
  "file that is no UTF-8": (path) => writeFileSync(path, Buffer.from([0xff, 0xfe, 0xfd, 0x80, 10])),
};

/** Command lines in which `FILE` is the thing; MODEL is a folder in which one file is. */
const uses: readonly (readonly string[])[] = [
  ["pattern", "FILE"],
  ["pattern", "FFSS", "--model", "FILE"],
  ["loss", "MODEL", "-c", "FILE"],
  ["loss", "MODEL", "-c", "ids.jsonl", "-p", "FILE"],
  ["run", "MODEL", "--prompt-file", "FILE"],
  ["run", "MODEL", "--tokens-file", "FILE"],
  ["analyze", "MODEL", "-c", "FILE"],
  ["search", "MODEL", "-c", "FILE", "--retain", "2", "-o", "out.json"],
  ["search", "MODEL", "-c", "ids.jsonl", "--retain", "2", "-o", "out.json", "--reuse", "FILE"],
  ["search", "--status", "FILE"],
  ["eval", "--from", "FILE"],
  ["report", "FILE"],
  ["inspect", "FILE"],
  ["config.json"],
  ["model.safetensors.index.json"],
  ["model-00002-of-00003.safetensors"],
  ["indexcache.json"],
  ["adapter_config.json"],
];

export const placeClasses = [
  fuzzClass({
    name: "pipes, devices, folders and links",
    mutation: fc.record({
      thing: fc.constantFrom(...Object.keys(things)),
      use: fc.constantFrom(...uses),
    }),
    runs: 40,
    async prepare(folder) {
      return async ({ thing, use }) => {
        for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
        const model = join(folder, "model");
        cpSync(fixture, model, { recursive: true });
        writeFileSync(
          join(folder, "ids.jsonl"),
          `${JSON.stringify({ input_ids: Array.from({ length: 64 }, (_, id) => id) })}\n`,
        );
        const path = use.length === 1 ? join(model, use[0] as string) : join(folder, "file");
        rmSync(path, { force: true });
        (things[thing] as (path: string) => void)(path);
        const args =
          use.length === 1
            ? ["inspect", model]
            : use.map((word) => (word === "FILE" ? path : word === "MODEL" ? model : word));
        const wrong = await runCaptured(args, folder);
        // An empty text is told of as a set without a window, and nothing is left behind.
        return wrong ?? (existsSync(join(folder, "out.json")) ? "a pattern file was written" : undefined);
      };
    },
  }),
];
