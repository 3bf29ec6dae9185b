/** Tokenizers and chat templates, which are programs of whoever made the checkpoint. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { Tokenizer } from "../../../src/checkpoint/tokenizer/tokenizer.ts";
import { writeByteTokenizer } from "../../checkpoint/byte-tokenizer.ts";
import { fuzzClass } from "../fuzz-class.ts";
import { byteMutation, jsonMutation, mutateBytes, mutateJson } from "../mutations.ts";

const words = "the key of Petra\n é 12345 <|user|>";

const tokenizer = fuzzClass({
  name: "tokenizer.json",
  mutation: fc.oneof(
    { weight: 3, arbitrary: fc.record({ json: jsonMutation }) },
    { weight: 1, arbitrary: fc.record({ bytes: byteMutation }) },
    { weight: 1, arbitrary: fc.record({ config: jsonMutation }) },
  ),
  runs: 30,
  async prepare(folder) {
    await writeByteTokenizer(folder, { config: { add_bos_token: true, clean_up_tokenization_spaces: false } });
    const path = join(folder, "tokenizer.json");
    const bytes = await readFile(path);
    const configPath = join(folder, "tokenizer_config.json");
    const config = await readFile(configPath, "utf8");
    const original = (await Tokenizer.load(folder)).hash;
    return async (mutation) => {
      await writeFile(
        path,
        "json" in mutation
          ? mutateJson(bytes.toString(), mutation.json).text
          : "bytes" in mutation
            ? mutateBytes(bytes, mutation.bytes)
            : bytes,
      );
      await writeFile(configPath, "config" in mutation ? mutateJson(config, mutation.config).text : config);
      const loaded = await Tokenizer.load(folder);
      const ids = loaded.encode(words);
      const wrong = ids.find((id) => !Number.isSafeInteger(id) || id < 0);
      if (wrong !== undefined) return `encodes to ${wrong}`;
      if (typeof loaded.decode(ids) !== "string") return "decodes to no text";
      const same = contentOf(await readFile(path)) === contentOf(bytes);
      return same === (loaded.hash === original) ? undefined : "another tokenizer with the same hash";
    };
  },
});

const contentOf = (bytes: Buffer): string => JSON.stringify(JSON.parse(bytes.toString()));

const template = `{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}<|user|>{{ message.content | trim }}{% else %}<|assistant|>{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`;
const pieces = [
  "{{",
  "}}",
  "{%",
  "%}",
  "{% for x in range(100000000) %}a{% endfor %}",
  "{{ 'a' * 1000000000 }}",
  "{{ messages.constructor.constructor('return process')() }}",
  "{{ self }}",
  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
  "{{ raise_exception('\u001b[2J' ) }}",
  "{{ [[[[1]]]] | tojson }}",
  "{% set ns = namespace(a=1) %}",
  "{{ none.x.y }}",
  "{{ messages | join('x') }}",
  "{% include 'x' %}",
  "{{ 1 / 0 }}",
  "((((((((((",
  "{#",
  "{{ __proto__ }}",
  "{{ messages[0].__proto__ }}",
];

const chatTemplate = fuzzClass({
  name: "chat template",
  mutation: fc.oneof(
    fc.record({ bytes: byteMutation }),
    fc.record({
      at: fc.oneof(fc.constant(0), fc.constant(template.length), fc.nat({ max: 1000 })),
      piece: fc.constantFrom(...pieces),
    }),
  ),
  runs: 20,
  async prepare(folder) {
    return async (mutation) => {
      const at = "at" in mutation ? mutation.at % (template.length + 1) : 0;
      const changed =
        "bytes" in mutation
          ? mutateBytes(Buffer.from(template), mutation.bytes)
          : template.slice(0, at) + mutation.piece + template.slice(at);
      await writeByteTokenizer(folder);
      await writeFile(join(folder, "chat_template.jinja"), changed);
      const loaded = await Tokenizer.load(folder);
      const messages = [{ role: "user", content: " Hello " }];
      const text = loaded.renderChat(messages);
      if (typeof text !== "string") return "renders no text";
      return text.includes("[object process]") ? "a template reached the process" : undefined;
    };
  },
});

export const tokenizerClasses = [tokenizer, chatTemplate];
