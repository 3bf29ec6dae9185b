/** Texts that hold a pattern: letters, scripts, overrides, configs, as `pattern` takes them. */
import fc from "fast-check";
import { isInlinePattern, readInlinePattern, readPatternText } from "../../../src/engines/pattern-source.ts";
import { fuzzClass } from "../fuzz-class.ts";
import { byteMutation, mutateBytes } from "../mutations.ts";

const letters = "FFSFSSSFSSFSFSSS";

/** Each names the letters once, in its own way. */
const texts = [
  `vllm serve zai-org/GLM-5 --hf-overrides '{"use_index_cache": true, "index_topk_pattern": "${letters}"}' --port 8000\n`,
  `#!/bin/bash\n# index_topk_pattern is below\nPATTERN=${letters}\npython -m sglang.launch_server --json-model-override-args "{\\"index_topk_pattern\\": \\"$PATTERN\\"}"\n`,
  `hf_overrides = {"use_index_cache": True, "index_topk_pattern": "${letters}"}\nllm = LLM("zai-org/GLM-5", hf_overrides=hf_overrides)\n`,
  `model: zai-org/GLM-5\nhf_overrides:\n  use_index_cache: true\n  index_topk_pattern: ${letters}\n`,
  `{"model_type": "glm_moe_dsa", "num_hidden_layers": 16, "index_topk_pattern": "${letters}"}`,
  `${letters}\n`,
];

/** Text that makes quadratic or backtracking readers slow. */
const floods = [
  "$",
  '"',
  "'",
  "\\",
  "{",
  "(",
  "`",
  "#",
  " ",
  "\n",
  "$(",
  "${",
  "<<EOF\n",
  "index_topk_pattern",
  "--a ",
  "F",
  "&&",
  "[{",
  "- ",
  "a: ",
  "\u001b[2J",
];

const patternText = fuzzClass({
  name: "pattern text",
  mutation: fc.oneof(
    { weight: 3, arbitrary: fc.record({ text: fc.nat({ max: texts.length - 1 }), bytes: byteMutation }) },
    {
      weight: 1,
      arbitrary: fc.record({
        flood: fc.constantFrom(...floods),
        times: fc.constantFrom(30, 1000, 100_000),
        around: fc.nat({ max: texts.length }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        words: fc.array(fc.constantFrom(...floods, ...texts, "FS", "freq:4", "$X", "X=FS", "\n"), { maxLength: 30 }),
      }),
    },
  ),
  runs: 60,
  async prepare() {
    return async (mutation) => {
      if ("bytes" in mutation) {
        const text = texts[mutation.text] as string;
        const changed = mutateBytes(Buffer.from(text), mutation.bytes).toString();
        return judgeLetters(changed, lettersIn(changed));
      }
      const text =
        "words" in mutation
          ? mutation.words.join("")
          : mutation.flood.repeat(mutation.times) + (texts[mutation.around] ?? "");
      return judgeLetters(text, undefined);
    };
  },
});

/** Letters are those of the text, all of them. */
function judgeLetters(text: string, wanted: string | undefined): string | undefined {
  const source = isInlinePattern(text) ? readInlinePattern(text) : readPatternText(text, "p.txt");
  const found =
    source.kind === "letters"
      ? source.letters
      : source.kind === "override" || source.kind === "config"
        ? source.fields.index_topk_pattern
        : undefined;
  if (typeof found !== "string") return undefined;
  if (found.length > 100_000) return `${found.length} letters`;
  if (wanted !== undefined && found !== wanted) return `reads ${JSON.stringify(found)} where the text has ${wanted}`;
  return undefined;
}

/** The run of letters that was mutated, as long as it stands there; undefined where it was broken into. */
function lettersIn(text: string): string | undefined {
  const runs = [...text.matchAll(/[FS]+/g)].map(([run]) => run);
  return runs.length === 1 && (runs[0]?.length ?? 0) >= letters.length ? runs[0] : undefined;
}

export const patternClasses = [patternText];
