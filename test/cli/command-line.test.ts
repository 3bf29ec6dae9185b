import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { copyFile, cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Random } from "../../src/base/random.ts";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { writeByteTokenizer } from "../checkpoint/byte-tokenizer.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import {
  demoModel,
  indexcache,
  indexcacheProcess,
  interrupt,
  killAfter,
  otherModel,
  shell,
  tinyModel,
  writeIds,
} from "./indexcache.ts";

let shared: string;
const folder = temporaryFolder("test");

beforeAll(async () => {
  shared = mkdtempSync(join(tmpdir(), "indexcache-cli-"));
  await writeIds(join(shared, "ids.jsonl"), 6, 48);
  await writeIds(join(shared, "many.jsonl"), 16, 128);
  const tiny = ["search", tinyModel, "-c", "ids.jsonl", "--sequence-length", "48", "--retain", "2"];
  await indexcache(shared, [...tiny, ...alone, "-o", "tiny.json", "-q"]);
  // What the interrupted searches have to end in.
  expect((await indexcache(shared, [...slow, ...alone, "-o", "whole.json", "-q"])).status).toBe(0);
});
afterAll(() => rmSync(shared, { recursive: true }));

beforeEach(async () => {
  for (const name of ["ids.jsonl", "many.jsonl", "tiny.json"]) await copyFile(join(shared, name), join(folder, name));
});

/** One process: what several do is tested in devices.test.ts, terminal.test.ts and parallel-loss.test.ts. */
const alone = ["--workers", "1"];
const set = ["-c", "ids.jsonl", "--sequence-length", "48"];
/** What a search by six sequences says even with --quiet, and nothing else. */
const fewSequences = expect.stringMatching(/^warning: 6 sequences are few to search by: .*\n$/);
const greedy = ["--strategy", "greedy"];
/** Long enough to be interrupted. */
const slow = [
  ...["search", tinyModel, "-c", "many.jsonl", "--sequence-length", "128"],
  ...["--strategy", "greedy", "--retain", "1"],
];

/** A pattern file without its timings: seconds, and the layers that ran, some of them again after a resume. */
async function timeless(path: string): Promise<unknown> {
  const { search, tool, ...file } = await readPatternFile(path);
  const { seconds: _, layer_executions: __, ...rest } = search;
  // The files of these tests have different names, and the same is found by one process or several.
  return { ...file, search: rest, tool: { ...tool, command: tool.command?.replace(/( --workers 1)? -o .*/, "") } };
}

describe("indexcache", () => {
  test("explains itself", async () => {
    const help = await indexcache(folder, ["--help"]);
    expect(help).toMatchObject({ status: 0, stderr: "" });
    const commands = [...help.stdout.matchAll(/^ {2}([a-z]+) .*\[options\]/gm)].map(([, name]) => name as string);
    expect(commands).toEqual(expect.arrayContaining(["search", "run", "server", "kit", "distill", "doctor"]));
    for (const command of commands) {
      // Each is loaded alone, so that starting is quick.
      const own = await indexcache(folder, [command, "--help"]);
      expect(own).toMatchObject({ status: 0, stdout: expect.stringContaining("Examples:") });
      expect(own.stdout).toContain(`Usage: indexcache ${command} `);
    }
    expect(await indexcache(folder, ["--version"])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
  });

  test.each([
    [["serach"], "unknown command 'serach'"],
    [["loss", "--patern", "FS"], "Did you mean --pattern?"],
    [["search", "--seed", "x"], "It must be a whole number"],
    [["search", "--device", "tpu"], "cpu, webgpu, cuda"],
    [["export", tinyModel], "-o, --output"],
  ])("refuses %j with exit code 2", async (args, words) => {
    const outcome = await indexcacheProcess(folder, args);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
  });
});

describe("search", () => {
  test("writes the file it was told to, and a journal; prints the result on stdout and the rest on stderr", async () => {
    const outcome = await indexcache(folder, [
      "search",
      tinyModel,
      ...set,
      ...alone,
      ...greedy,
      "--retain",
      "1/4",
      "-o",
      "p.json",
    ]);
    expect(outcome.status).toBe(0);
    const file = await readPatternFile(join(folder, "p.json"));
    expect(file).toMatchObject({
      model: { name: "glm-groups", layers: 5, index_topk: 7 },
      calibration: { source: "ids.jsonl", sequences: 6, tokens: 288 },
      search: { strategy: "greedy", evaluations: 11 },
    });
    expect(file.index_topk_pattern).toBe("FSSSS");
    expect(outcome.stdout).toContain(`Pattern      ${file.index_topk_pattern}\n`);
    expect(outcome.stderr).toContain("step 4 of 4: layer ");
    expect((await readFile(join(folder, "p.json.journal.jsonl"), "utf8")).split("\n")).toHaveLength(2 + 11 + 2);
    expect((await readdir(folder)).sort()).toEqual([
      "ids.jsonl",
      "many.jsonl",
      "p.json",
      "p.json.journal.jsonl",
      "tiny.json",
    ]);
  });

  test("prints the pattern file with --json and writes nothing without -o", async () => {
    const outcome = await indexcache(folder, [
      "search",
      tinyModel,
      ...set,
      ...alone,
      ...greedy,
      "--retain",
      "4",
      "--json",
      "-q",
    ]);
    expect(outcome).toMatchObject({ status: 0, stderr: fewSequences });
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      schema_version: 1,
      trajectory: [{ candidates: [{}, {}, {}, {}] }],
    });
    expect(await readdir(folder)).toHaveLength(3);
  });

  test("does not touch the journal of another run without being told", async () => {
    const args = ["search", tinyModel, ...set, ...alone, ...greedy, "--retain", "4", "-o", "p.json", "-q"];
    expect((await indexcache(folder, args)).status).toBe(0);
    const journal = await readFile(join(folder, "p.json.journal.jsonl"));
    const again = await indexcache(folder, args);
    expect(again).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/exists already\nhint: .*--resume.*--fresh/),
    });
    expect(await readFile(join(folder, "p.json.journal.jsonl"))).toEqual(journal);
    // Before the text is read and the weights are hashed, which takes minutes with large ones.
    const told = await indexcache(folder, args.slice(0, -1));
    expect(told.stderr).toMatch(/^error: Journal/);
    expect((await indexcache(folder, [...args, "--dry-run"])).status).toBe(0);
    expect((await indexcache(folder, [...args, "--fresh"])).status).toBe(0);
    const other = await indexcache(folder, [...args, "--resume", "--sequences", "5"]);
    expect(other).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(
        /of another run: calibration_hash \(journal: [0-9a-f]{12}\.\.\., now: [0-9a-f]{12}\.\.\.\)/,
      ),
    });
    // A deeper search is the same run taken further.
    const deeper = await indexcache(folder, [...args, "--resume", "--retain", "3"]);
    expect(deeper.status).toBe(0);
    expect((await readPatternFile(join(folder, "p.json"))).trajectory).toHaveLength(2);
  });

  test("saves at Ctrl-C and prints the command that gives the same file as an uninterrupted run", async () => {
    const stopped = await interrupt(folder, [...slow, "-o", "cut it.json"], "step 1 of 4", "SIGINT");
    expect(stopped).toMatchObject({ status: 130, stdout: "" });
    expect(stopped.stderr).toMatch(
      /\nerror: Interrupted; every finished evaluation is in "cut it.json.journal.jsonl"\nhint: continue with: node \S+ search .* -o 'cut it.json' --resume\n$/,
    );
    expect(stopped.stderr).not.toContain("    at ");
    const command = /continue with: (.*)/.exec(stopped.stderr)?.[1] ?? "";
    const resumed = await shell(folder, command);
    expect(resumed).toMatchObject({ status: 0, stderr: expect.stringMatching(/resuming: \d patterns/) });
    expect(await timeless(join(folder, "cut it.json"))).toEqual(await timeless(join(shared, "whole.json")));
  });

  test("goes on after kill -9", async () => {
    const killed = await interrupt(folder, [...slow, ...alone, "-o", "p.json"], "step 2 of 4", "SIGKILL");
    expect(killed.status).toBe("SIGKILL");
    expect((await indexcache(folder, [...slow, ...alone, "-o", "p.json", "--resume", "-q"])).status).toBe(0);
    expect(await timeless(join(folder, "p.json"))).toEqual(await timeless(join(shared, "whole.json")));
  });

  test("ends in the same file after twenty kills at random moments", async () => {
    const random = new Random(7);
    let begun = false;
    for (let kill = 0; kill < 20; kill++) {
      const words = [...slow, ...alone, "-o", "p.json", begun ? "--resume" : "--fresh"];
      const finished = await killAfter(folder, words, random.integer(150, 1500));
      begun = !finished && existsSync(join(folder, "p.json.journal.jsonl"));
    }
    const end = await indexcache(folder, [...slow, ...alone, "-o", "p.json", begun ? "--resume" : "--fresh", "-q"]);
    expect(end).toMatchObject({ status: 0, stderr: "" });
    expect(await timeless(join(folder, "p.json"))).toEqual(await timeless(join(shared, "whole.json")));
  });

  test("keeps what it has when the disk is full, and goes on when there is room", async () => {
    // A limit on the size of files stands in for the disk: the journal reaches it after some evaluations.
    const line = `$indexcache ${[...slow, ...alone].map((word) => `'${word}'`).join(" ")} -o p.json -q`;
    const full = await shell(folder, `ulimit -f 8; ${line}`);
    expect(full).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/^error: Cannot write journal .*\nhint: .*--resume\n$/),
    });
    const resumed = await shell(folder, `${line} --resume`);
    expect(resumed).toMatchObject({ status: 0, stderr: "" });
    expect((await readPatternFile(join(folder, "p.json"))).search.evaluations).toBe(11);
  });

  test.runIf(process.platform === "linux")("says at once that the disk is full", async () => {
    await symlink("/dev/full", join(folder, "p.json.journal.jsonl"));
    const outcome = await indexcache(folder, ["search", tinyModel, ...set, ...alone, "-o", "p.json", "--fresh"]);
    expect(outcome).toMatchObject({ status: 3, stderr: expect.stringContaining("the disk is full") });
  });

  test("looks at -o before it works", async () => {
    await mkdir(join(folder, "out"));
    for (const [name, words] of [
      ["none/p.json", "no such file or folder"],
      ["out", "it is a folder"],
    ] as const) {
      const outcome = await indexcache(folder, ["search", tinyModel, ...set, ...alone, "-o", name]);
      expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
      expect(outcome.stderr).not.toContain("calibration:");
    }
  });

  test("finds out before the work that not a byte can be written", async () => {
    const outcome = await shell(
      folder,
      `ulimit -f 0; $indexcache search ${tinyModel} ${[...set, ...alone].join(" ")} -o p.json`,
    );
    expect(outcome).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/^error: Cannot write "p.json": [^\n]*\n$/),
    });
    expect(await readdir(folder)).not.toContain("p.json");
  });

  test("leaves a quiet trace when nobody reads its result", async () => {
    const outcome = await shell(
      folder,
      `set -o pipefail; $indexcache search ${tinyModel} ${[...set, ...alone].join(" ")} --retain 4 -q | true`,
    );
    expect(outcome).toEqual({ status: 0, stdout: "", stderr: fewSequences });
  });

  test.each([
    ["--holdout of everything", ["--holdout", "6"], "at least one has to be left"],
    ["--holdout that is no number", ["--holdout", "some"], "it must be a share like 1/4 or 0.25"],
    ["--engine alone", ["--engine", "vllm"], "--engine needs --pipeline-stages"],
    ["stages without an engine", ["--pipeline-stages", "2"], "--pipeline-stages needs --engine"],
    [
      "a target that stages leave no room for",
      ["--pipeline-stages", "4", "--engine", "vllm", "--retain", "2"],
      "at least 4 are needed: --pipeline-stages 4 --engine vllm keeps 1, 2, 4 Full",
    ],
    ["a pin outside the model", ["--pin-full", "5"], "--pin-full names layer 5, the model has 5 layers"],
    ["a run limit that the target breaks", ["--max-shared-run", "1", "--retain", "2"], "--max-shared-run is 1"],
    ["--memory without a size", ["--memory", "much"], "It must be a size like 512MiB"],
    ["--race with the default strategy", ["--race"], "--race goes with greedy, blockwise, not with --strategy refine"],
    ["--alpha without a race", ["--alpha", "0.1"], "--alpha is an option of --race"],
    ["--status of no file", ["--status", "none.jsonl"], "no such file"],
    ["--retain 0", ["--retain", "0"], "at least layer 0 has to stay Full"],
    ["--retain above the layers", ["--retain", "6"], '--retain is "6", more than the model\'s 5 layers'],
    ["--resume without a file", ["--resume"], "--resume needs -o FILE"],
    ["--resume without a journal", ["--resume", "-o", "p.json"], 'no journal "p.json.journal.jsonl" to continue'],
    ["--resume and --fresh", ["--resume", "--fresh", "-o", "p.json"], "exclude each other"],
  ])("refuses %s", async (_, args, words) => {
    const outcome = await indexcache(folder, ["search", tinyModel, ...set, ...alone, ...args]);
    expect(outcome).toMatchObject({ status: 2, stdout: "" });
    expect(outcome.stderr).toContain(words);
    expect(outcome.stderr).not.toContain("    at ");
  });
});

describe("loss", () => {
  test("gives the record, for a pattern by letters, by name and by file", async () => {
    const file = await readPatternFile(join(folder, "tiny.json"));
    const outcomes = await Promise.all(
      ["tiny.json", file.index_topk_pattern].map((pattern) =>
        indexcache(folder, ["loss", tinyModel, ...set, ...alone, "-p", pattern, "--json"]),
      ),
    );
    const records = outcomes.map(({ stdout }) => JSON.parse(stdout) as Record<string, unknown>);
    expect(records[1]).toEqual(records[0]);
    expect(records[0]).toEqual({
      index_topk_pattern: file.index_topk_pattern,
      loss: expect.closeTo(file.loss, 6),
      standard_error: expect.closeTo(file.patterns?.at(-1)?.standard_error ?? 0, 6),
      perplexity: expect.closeTo(Math.exp(file.loss), 3),
      tokens: 6 * 47,
      sequences: Array.from({ length: 6 }, () => ({ loss: expect.any(Number), tokens: 47 })),
    });
    const named = await indexcache(folder, ["loss", tinyModel, ...set, ...alone, "-p", "freq:2", "--offset", "3"]);
    expect(named.stdout).toContain("Pattern      FFFSF\n");
  });

  test.each(["loss", "search"])("%s refuses sequences on which a pattern cannot matter", async (command) => {
    const outcome = await indexcache(folder, [command, tinyModel, "-c", "ids.jsonl", "--sequence-length", "7"]);
    expect(outcome).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringMatching(/^error: .*index_topk \(7\)/),
    });
  });

  test.each(["loss", "search", "analyze"])(
    "%s asks for a calibration set of any model but the demo",
    async (command) => {
      expect(await indexcache(folder, [command, tinyModel])).toMatchObject({
        status: 2,
        stdout: "",
        stderr: expect.stringMatching(/^error: -c is missing: .*glm-groups.*\nhint: .*-c text\.jsonl/),
      });
    },
  );

  test("takes the set of the package for the demo model, by whatever name", async () => {
    await symlink(demoModel, join(folder, "link"));
    const outcome = await indexcache(folder, [
      "loss",
      "link",
      "--sequences",
      "1",
      "--sequence-length",
      "256",
      "--json",
    ]);
    expect(outcome).toMatchObject({
      status: 0,
      stderr: expect.stringContaining("from indexcache:calibration/demo.jsonl"),
    });
  });

  test("takes the set of the package for models made of the demo model, and says so", async () => {
    const length = ["--sequences", "1", "--sequence-length", "256", "--json"];
    await cp(demoModel, join(folder, "derived"), { recursive: true });
    const outcome = await indexcache(folder, ["loss", "derived", ...length]);
    expect(outcome).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^warning: without -c, .*"derived" has the demo model's tokenizer/m),
    });
    expect(outcome.stdout).toBe((await indexcache(folder, ["loss", ...length])).stdout);

    const tokenizer = join(folder, "derived", "tokenizer.json");
    await writeFile(tokenizer, `${await readFile(tokenizer, "utf8")} `);
    expect(await indexcache(folder, ["loss", "derived", ...length])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^error: -c is missing/),
    });
  });

  test.each([
    ["a short pattern", ["-p", "FSF"], /--pattern has 3 letters, the model has 5 layers/],
    ["lower case", ["-p", "fsfsf"], /--pattern has "f" at layer 0.*\nhint: /],
    ["mixed case", ["-p", "FsFFF"], /--pattern has "s" at layer 1/],
    ["another letter", ["-p", "FSSFX"], /--pattern has "X" at layer 4: only F \(Full\) and S \(Shared\)/],
    ["S first", ["-p", "SFFFF"], /--pattern starts with S/],
    ["a name that is none", ["-p", "unifrom:4"], /"unifrom:4"/],
    ["an index_topk_freq of 0", ["-p", "freq:0"], /freq:0/],
    ["a file that is absent", ["-p", "none.json"], /none.json": no such file/],
    ["a file of another kind", ["-p", "ids.jsonl"], /Pattern file "ids.jsonl" is not JSON/],
    [
      "a calibration file without text",
      ["-c", "tiny.json"],
      /has no text that is known: its fields are "schema_version", /,
    ],
    ["text without a tokenizer", ["-c", "text.txt"], /no tokenizer.json/],
    ["a line that is not JSON", ["-c", "bad.jsonl"], /bad.jsonl", line 2 is not JSON/],
    ["an id above the vocabulary", ["-c", "range.jsonl"], /line 2: token id 83 at position 1 is outside .* 83/],
    ["an empty set", ["-c", "empty.jsonl"], /"empty.jsonl" holds no text: it is empty/],
    ["a sequence longer than the window", ["--sequence-length", "300"], /the model's window is 256/],
    [
      "a sequence longer than the text",
      ["--sequence-length", "256", "--sequences", "1", "-c", "short.jsonl"],
      /has 48 tokens, too few/,
    ],
  ])("refuses %s", async (_, args, words) => {
    await writeFile(join(folder, "text.txt"), "text");
    await writeFile(join(folder, "bad.jsonl"), '{"input_ids":[1]}\n{"input_ids":[1\n');
    await writeFile(join(folder, "range.jsonl"), '{"input_ids":[1]}\n{"input_ids":[1,83]}\n');
    await writeFile(join(folder, "empty.jsonl"), "");
    await writeIds(join(folder, "short.jsonl"), 1, 48);
    // A second -c would be a second source.
    const own = args.includes("-c") ? set.filter((word) => word !== "-c" && word !== "ids.jsonl") : set;
    const outcome = await indexcache(folder, ["loss", tinyModel, ...own, ...alone, ...args]);
    expect(outcome).toMatchObject({ status: 2, stdout: "" });
    expect(outcome.stderr).toMatch(words);
    expect(outcome.stderr).toMatch(/^error: [^\n]*\n(hint: [^\n]*\n)?$/);
  });

  test("refuses the pattern file of another model, naming both", async () => {
    const outcome = await indexcache(folder, ["loss", otherModel, ...set, "-p", "tiny.json"]);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toMatch(
      /^error: Pattern file "tiny.json" is of model "glm-groups", not of "glm-freq": layers 5 against 6, .*weight_hash \w+\.\.\. against \w+\.\.\.\nhint: /,
    );
  });
});

describe("run", () => {
  /** The tiny model with a tokenizer whose ids are the letters from `!` up; its vocabulary ends at `s`. */
  async function modelWithText(): Promise<string> {
    const path = join(folder, "model");
    await writeByteTokenizer(path, { template: "{% for m in messages %}{{ m.content }}!{% endfor %}" });
    const tokenizer = JSON.parse(await readFile(join(path, "tokenizer.json"), "utf8")) as {
      added_tokens: object[];
      model: object;
    };
    const letters = Array.from({ length: 82 }, (_, index) => [String.fromCharCode(33 + index), index + 1]);
    const added = [{ ...tokenizer.added_tokens[0], id: 0 }];
    const model = { ...tokenizer.model, vocab: Object.fromEntries(letters), merges: [] };
    await writeFile(join(path, "tokenizer.json"), JSON.stringify({ ...tokenizer, added_tokens: added, model }));
    await writeFile(join(path, "tokenizer_config.json"), '{"bos_token":"<bos>"}');
    for (const name of ["config.json", "model.safetensors"]) await copyFile(join(tinyModel, name), join(path, name));
    return path;
  }

  test("continues ids as they are", async () => {
    await writeFile(join(folder, "prompt.json"), "[0, 5, 9, 33, 7, 7, 40, 2]");
    const args = ["run", tinyModel, "--tokens-file", "prompt.json", "-n", "6", "--ignore-eos"];
    const { status, stdout } = await indexcache(folder, [...args, "-p", "FFSSF", "--json", "-q"]);
    expect(status).toBe(0);
    const record = JSON.parse(stdout) as { tokens: number[] };
    expect(record).toEqual({
      index_topk_pattern: "FFSSF",
      prompt_tokens: 8,
      tokens: expect.any(Array),
      text: "",
      prefill_seconds: expect.any(Number),
      decode_seconds: expect.any(Number),
      // Six forward calls, the prefill and five decodes, all with more keys than the 7 that an indexer selects.
      indexer_executions: { made: 6 * 3, saved: 6 * 2 },
    });
    expect(record.tokens).toHaveLength(6);
    const plain = await indexcache(folder, [...args, "-p", "FFSSF"]);
    expect(plain.stdout).toBe(`${JSON.stringify(record.tokens)}\n`);
    expect(plain.stderr).toMatch(
      /prefill 8 tokens, .*; decode 6 tokens, .*; memory .*; indexers 18 run, 12 saved; ended by token limit\n$/,
    );
  });

  test("streams text from a prompt, a file and stdin alike", async () => {
    const model = await modelWithText();
    await writeFile(join(folder, "prompt.txt"), "MODEL");
    const args = ["run", model, "-n", "8", "--ignore-eos", "--threads", "1", "-q"];
    const outcomes = await Promise.all([
      indexcache(folder, [...args, "--prompt", "MODEL"]),
      indexcache(folder, [...args, "--prompt-file", "prompt.txt"]),
      indexcacheProcess(folder, args, "MODEL"),
      indexcache(folder, [...args, "--prompt", "MODEL", "--json"]),
    ]);
    expect(outcomes.map(({ status, stderr }) => ({ status, stderr }))).toEqual(
      Array(4).fill({ status: 0, stderr: "" }),
    );
    const [first, second, third, json] = outcomes.map(({ stdout }) => stdout);
    expect(second).toBe(first);
    expect(third).toBe(first);
    const record = JSON.parse(json ?? "") as { text: string; prompt_tokens: number };
    expect(`${record.text}\n`).toBe(first);
    // BOS and five letters.
    expect(record.prompt_tokens).toBe(6);
    const chat = await indexcache(folder, [...args, "--prompt", "MODEL", "--chat", "--json"]);
    expect(JSON.parse(chat.stdout)).toMatchObject({ prompt_tokens: 7 });
    const cut = await indexcache(folder, [
      ...args,
      "--prompt",
      "MODEL",
      "--stop",
      "~~~",
      "--stop",
      record.text.slice(2, 4),
    ]);
    expect(cut.stdout).toBe(`${record.text.slice(0, 2)}\n`);
  });

  test("samples the same text for the same seed", async () => {
    const model = await modelWithText();
    const draw = async (...args: string[]): Promise<string> =>
      (
        await indexcache(folder, [
          "run",
          model,
          "--prompt",
          "A",
          "-n",
          "12",
          "--ignore-eos",
          "--threads",
          "1",
          "-q",
          ...args,
        ])
      ).stdout;
    const sampled = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.95"];
    expect(await draw(...sampled, "--seed", "3")).toBe(await draw(...sampled, "--seed", "3"));
    expect(await draw(...sampled, "--seed", "4")).not.toBe(await draw(...sampled, "--seed", "3"));
    expect(await draw("--top-k", "1")).toBe(await draw());
  });

  test("runs a searched pattern file", async () => {
    await writeFile(join(folder, "prompt.json"), "[0, 5, 9, 33]");
    const outcome = await indexcache(folder, [
      "run",
      tinyModel,
      "-p",
      "tiny.json",
      "--tokens-file",
      "prompt.json",
      "-n",
      "2",
      "--json",
      "-q",
    ]);
    const file = await readPatternFile(join(folder, "tiny.json"));
    expect(JSON.parse(outcome.stdout)).toMatchObject({ index_topk_pattern: file.index_topk_pattern });
  });

  test.each([
    ["two prompts", ["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file exclude each other"],
    ["ids in a chat", ["--tokens-file", "ids.json", "--chat"], "--chat needs text"],
    ["an absent file", ["--prompt-file", "none.txt"], 'Cannot read prompt file "none.txt"'],
    ["ids that are none", ["--tokens-file", "text.json"], 'Tokens file "text.json": "[0]"'],
    ["ids above the vocabulary", ["--tokens-file", "ids.json"], "Token id 83 at position 1"],
    ["no ids", ["--tokens-file", "empty.json"], "The prompt is empty"],
    ["text without a tokenizer", ["--prompt", "a"], "no tokenizer.json"],
    ["a negative temperature", ["--prompt", "a", "--temperature", "-1"], "--temperature is -1"],
    ["a --top-p of 2", ["--prompt", "a", "--top-p", "2"], "--top-p is 2"],
  ])("refuses %s", async (_, args, words) => {
    await writeFile(join(folder, "ids.json"), "[1,83]");
    await writeFile(join(folder, "text.json"), '["a"]');
    await writeFile(join(folder, "empty.json"), "[]");
    const outcome = await indexcache(folder, ["run", tinyModel, ...args]);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
    expect(outcome.stderr).not.toContain("    at ");
  });
});
