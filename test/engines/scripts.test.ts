/** Scripts, units, manifests and programs as people have them: the pattern is found, or the message says why not. */
import { describe, expect, test } from "vitest";
import { readPatternText } from "../../src/engines/pattern-source.ts";

const letters = "FFSFSSSFSS";
const json = `{"use_index_cache": true, "index_topk_pattern": "${letters}"}`;
const escaped = json.replaceAll('"', '\\"');

function read(text: string): { pattern: unknown; flag: string | undefined } {
  const source = readPatternText(text, "serve");
  if (source.kind !== "override") throw new RangeError(source.kind);
  return { pattern: source.fields.index_topk_pattern ?? source.fields.indexer_types, flag: source.flag };
}

const vllm = "--hf-overrides";

describe("the pattern of", () => {
  test.each<[string, string, string | undefined]>([
    [
      "a shell default",
      `: "\${PATTERN:=${letters}}"\nvllm serve m ${vllm} "{\\"index_topk_pattern\\": \\"$PATTERN\\"}"`,
      vllm,
    ],
    [
      "a workflow",
      `env:\n  PATTERN: "${letters}"\nrun: |\n  vllm serve m ${vllm} '{"index_topk_pattern": "\${{ env.PATTERN }}"}'\n`,
      vllm,
    ],
    [
      "a compose file that escapes its dollar sign",
      `environment:\n  PATTERN: ${letters}\ncommand: >\n  vllm serve m ${vllm} '{"index_topk_pattern": "$$PATTERN"}'\n`,
      vllm,
    ],
    [
      "a script with comments",
      `set -e\n# it's what we run\nA=(\n  --tp 8  # one node's GPUs\n  ${vllm} '${json}'\n)\nvllm serve m "\${A[@]}"`,
      vllm,
    ],
    [
      "a script with a commented alternative",
      `# ${vllm} '{"index_topk_pattern": "FSSSFSSSFS"}'\nvllm serve m ${vllm} '${json}'`,
      vllm,
    ],
    [
      "a commented continuation",
      `vllm serve m \\\n  ${vllm} '${json}' \\\n#  ${vllm} '{"index_topk_pattern": "FS"}' \\\n  --port 1`,
      vllm,
    ],
    [
      "a block comment of the shell",
      `: <<'OLD'\n${vllm} '{"index_topk_pattern": "FS"}'\nOLD\nvllm serve m ${vllm} '${json}'`,
      vllm,
    ],
    ["a heredoc", `cat > o.json <<'EOF'\n${json}\nEOF\nvllm serve m ${vllm} "$(cat o.json)"`, undefined],
    [
      "a JSON of several lines in quotes",
      `vllm serve m ${vllm} '{\n  "index_topk_pattern":\n    "${letters}"\n}'`,
      vllm,
    ],
    [
      "Windows line ends",
      `@echo off\r\nREM index_topk_pattern: FS\r\nvllm serve m ^\r\n  ${vllm} "${escaped}"\r\n`,
      vllm,
    ],
    ["PowerShell", `# don't\nvllm serve m ${vllm} \`\n  '${escaped}'`, vllm],
    ["doubled quotes", `vllm serve m ${vllm} "${json.replaceAll('"', '""')}"`, vllm],
    [
      "an assigned variable",
      `PATTERN=${letters}\nvllm serve m ${vllm} "{\\"index_topk_pattern\\": \\"$PATTERN\\"}"`,
      vllm,
    ],
    ["an exported variable", `export P="${letters}"\nvllm serve m ${vllm}.index_topk_pattern "\${P}"`, vllm],
    ["a variable with a default", `vllm serve m ${vllm} '{"index_topk_pattern": "'\${P:-${letters}}'"}'`, vllm],
    ["a default of itself", `P=\${P:-${letters}}\nvllm serve m ${vllm}.index_topk_pattern=$P`, vllm],
    ["a variable of a variable", `A=${letters}\nB=$A\nvllm serve m ${vllm}.index_topk_pattern $B`, vllm],
    [
      "a dotted argument over two lines",
      `vllm serve m ${vllm}.use_index_cache true \\\n ${vllm}.index_topk_pattern \\\n '${letters}'`,
      vllm,
    ],
    ["letters over a continuation", `vllm serve m ${vllm} "{\\"index_topk_pattern\\": \\"FFSFS\\\nSSFSS\\"}"`, vllm],
    [
      "a Dockerfile with an array",
      `FROM vllm/vllm-openai\n# don't cache\nCMD ["serve", "m", "${vllm}", "${escaped}"]\n`,
      vllm,
    ],
    [
      "a Dockerfile with dotted arguments",
      `ENTRYPOINT ["vllm", "serve", "${vllm}.index_topk_pattern", "${letters}"]`,
      vllm,
    ],
    [
      "a Dockerfile with ENV",
      `ENV PATTERN=${letters}\nCMD vllm serve m ${vllm} "{\\"index_topk_pattern\\": \\"$PATTERN\\"}"`,
      vllm,
    ],
    [
      "a Dockerfile with the old ENV",
      `ENV PATTERN ${letters}\nCMD vllm serve m ${vllm}.index_topk_pattern $PATTERN`,
      vllm,
    ],
    [
      "a systemd unit",
      `[Service]\n; it's ours\nEnvironment="P=${letters}"\nExecStart=/usr/bin/vllm serve m ${vllm} '{"index_topk_pattern": "\${P}"}'`,
      vllm,
    ],
    ["docker-compose, one line", `services:\n  vllm:\n    # don't\n    command: serve m ${vllm} '${json}'\n`, vllm],
    ["docker-compose, folded", `services:\n  vllm:\n    command: >\n      serve m\n      ${vllm} '${json}'\n`, vllm],
    [
      "docker-compose, a list",
      `services:\n  vllm:\n    command:\n      - serve\n      - ${vllm}\n      - '${json}'  # 1/4\n`,
      vllm,
    ],
    [
      "docker-compose, its environment",
      `services:\n  a:\n    environment:\n      P: ${letters}\n    command: vllm serve m ${vllm}.index_topk_pattern \${P}\n`,
      vllm,
    ],
    [
      "Kubernetes",
      `apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: a\n      env:\n        - name: PATTERN\n          value: ${letters}\n      args: ["${vllm}", "{\\"index_topk_pattern\\": \\"$(PATTERN)\\"}"]\n`,
      vllm,
    ],
    [
      "Kubernetes, a shell",
      `kind: Pod\nspec:\n  containers:\n    - command: ["bash", "-c"]\n      args:\n        - |\n          # it's a shell\n          vllm serve m ${vllm} '${json}'\n`,
      vllm,
    ],
    ["several YAML documents", `kind: A\n---\nkind: B\nargs: ["${vllm}=${escaped}"]\n`, vllm],
    [
      "a YAML of settings",
      `model: m\nhf_overrides:\n  use_index_cache: true\n  index_topk_pattern: ${letters}  # 1/2\n`,
      undefined,
    ],
    [
      "TensorRT-LLM's options",
      `# don't\nmodel_kwargs:\n  index_topk_pattern: "${letters}"\n`,
      "--extra_llm_api_options",
    ],
    [
      "JSON with comments",
      `// it's ours\n{\n  /* "index_topk_pattern": "FS" */\n  "index_topk_pattern": "${letters}", // ours\n}\n`,
      undefined,
    ],
    ["JSON in JSON", JSON.stringify({ args: ["serve", vllm, json] }), vllm],
    ["JSON in JSON in JSON", JSON.stringify({ task: JSON.stringify({ env: { OVERRIDES: json } }) }), undefined],
    ["a launch.json", `{\n  // VS Code\n  "configurations": [{ "args": ["${vllm}", "${escaped}"], },],\n}`, vllm],
    [
      "a Python call",
      `from vllm import LLM\nllm = LLM(model="m",\n    hf_overrides={"use_index_cache": True, "index_topk_pattern": "${letters}"})`,
      undefined,
    ],
    [
      "a Python dictionary with single quotes",
      `OVERRIDES = {\n    'use_index_cache': True,  # don't\n    'index_topk_pattern': '${letters}',\n}\n`,
      undefined,
    ],
    [
      "a docstring with another one",
      `"""Serve, e.g. with index_topk_pattern="FS"."""\nPATTERN: str = "${letters}"\nargs = dict(index_topk_pattern=PATTERN)\n`,
      undefined,
    ],
    [
      "an f-string",
      `PATTERN = "${letters}"\ncmd = f'vllm serve m ${vllm} {{"index_topk_pattern": "{PATTERN}"}}'\n`,
      vllm,
    ],
    ["an attribute", `config.index_topk_pattern = "${letters}"\n`, undefined],
    ["a subscript", `overrides["index_topk_pattern"] = "${letters}"\n`, undefined],
    ["adjacent strings", `LLM(hf_overrides={"index_topk_pattern": "FFSFS"\n   "SSFSS"})`, undefined],
    ["a list of types", `AutoConfig.from_pretrained("m", indexer_types=[\n  'full', "full", 'shared',\n])`, undefined],
    [
      "a command inside a command",
      `ssh host "bash -lc 'vllm serve m ${vllm} \\"${json.replaceAll('"', '\\\\\\"')}\\"'"`,
      vllm,
    ],
    ["a Makefile", `PATTERN := ${letters}\nserve:\n\tvllm serve m ${vllm}.index_topk_pattern=$(PATTERN)\n`, vllm],
    ["two launches of the same", `vllm serve a ${vllm} '${json}'\nvllm serve b ${vllm} '${json}'`, vllm],
  ])("%s", (name, text, flag) => {
    const types = name === "a list of types" ? ["full", "full", "shared"] : letters;
    expect(read(text)).toEqual({ pattern: types, flag });
    expect(read(text.replaceAll("\n", "\r\n"))).toMatchObject({ pattern: types });
  });
});

describe("what is no pattern is said to be none", () => {
  test.each([
    [
      "a variable that is not set",
      `vllm serve m ${vllm} "{\\"index_topk_pattern\\": \\"$P\\"}"`,
      "the pattern is the variable P, whose value is not known here",
    ],
    ["a variable that is set twice", `P=FFSS\nP=FSSS\nvllm serve m ${vllm}.index_topk_pattern $P`, "the variable P"],
    ["printf", `P=FFSS\nO=$(printf '{"index_topk_pattern":"%s"}' "$P")`, 'its value is not known here: "%s"'],
    [
      "a placeholder in brackets",
      `vllm serve m ${vllm} '{"index_topk_pattern": "<your pattern>"}'`,
      "its value is not known here",
    ],
    [
      "a placeholder with underscores",
      `vllm serve m ${vllm} '{"index_topk_pattern": "YOUR_PATTERN"}'`,
      "its value is not known here",
    ],
    ["an ellipsis", `vllm serve m ${vllm} '{"index_topk_pattern": "FFSF..."}'`, "its value is not known here"],
    [
      "Helm",
      `args: ["${vllm}", "{\\"index_topk_pattern\\": \\"{{ .Values.pattern }}\\"}"]`,
      "its value is not known here",
    ],
    ["an expression", 'LLM(hf_overrides={"index_topk_pattern": "F" + "S" * 3})', "its value is not known here"],
    ["a call", 'LLM(hf_overrides={"index_topk_pattern": make_pattern(61)})', "the variable make_pattern"],
    ["a mention", "# docs\necho set index_topk_pattern to letters", "names index_topk_pattern, and gives it no value"],
    ["a comment", `# ${vllm} '${json}'\nvllm serve m`, "in comments only"],
    ["two that differ", `a ${vllm} '${json}'\nb ${vllm} '{"index_topk_pattern": "FS"}'`, "two different patterns"],
    [
      "one that differs behind a dot",
      `a ${vllm}.index_topk_pattern FFSS ${vllm}.index_topk_pattern FSSS`,
      "two different patterns",
    ],
    ["nothing", "vllm serve m --port 1", "no index_topk_pattern, indexer_types or index_topk_freq is in it"],
    ["null", "null", "holds no pattern"],
    ["true", "true", "holds no pattern"],
    ["a word", "Fussy", "holds no pattern"],
    ["a pattern file without its header", '{"index_topk_pattern": "FSSS", "trajectory": []}', '"schema_version"'],
    [
      "a pattern file that is cut off",
      '{\n  "schema_version": 1,\n  "index_topk_pattern": "FSSS",\n  "mod',
      "is not JSON",
    ],
    [
      "an override that is cut off",
      '{"use_index_cache": true, "index_topk_pattern": "FSS',
      "its value is not known here",
    ],
    ["an override without its end", '{"use_index_cache": true, "index_topk_pattern": "FSSF"', "is cut off"],
  ])("%s", (_, text, words) => {
    expect(() => readPatternText(text, "serve")).toThrow(words);
  });
});

describe("takes time in proportion to the text", () => {
  const many = 100_000;
  test.each([
    ["dollar signs", "$".repeat(many)],
    ["dollar signs and braces", "${".repeat(many)],
    ["quotes", `"'`.repeat(many)],
    ["escaped quotes", `index_topk_pattern ${"\\".repeat(many)}"`],
    ["words of a list", `indexer_types=[${'"full" '.repeat(30)}"x`],
    ["a list of bad entries", `indexer_types=[${'"full!", '.repeat(many / 10)}]`],
    ["blanks", `index_topk_pattern${" ".repeat(many)}x=${" ".repeat(many)}`],
    ["one long word", "a".repeat(many)],
    ["underscores before an equals sign", `${"_".repeat(many)}=`],
    ["braces", "{".repeat(many)],
    ["brackets", "[".repeat(many)],
    ["docstrings", '"""\n'.repeat(many / 2 + 1)],
    ["comments of JSON", "/*".repeat(many)],
    ["assignments", "A=$A ".repeat(many / 5)],
    ["letters", `index_topk_pattern="${"F".repeat(many)}`],
    ["dashes", "-".repeat(many)],
    ["backslashes over lines", "\\\n".repeat(many)],
  ])("%s", (_, text) => {
    const started = process.cpuUsage();
    expect(() => readPatternText(text, "serve")).toThrow();
    const { user, system } = process.cpuUsage(started);
    expect((user + system) / 1e6).toBeLessThan(5);
  });

  test("a text that is too long, or names the field too often, is refused", () => {
    expect(() => readPatternText("x ".repeat(1_500_000), "serve")).toThrow("3,000,000 characters");
    expect(() => readPatternText("index_topk_freq ".repeat(5000), "serve")).toThrow("that is no script of a server");
  });
});
