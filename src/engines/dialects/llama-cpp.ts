/**
 * llama.cpp: a bool array in the metadata of a GGUF file, which its converter writes where config.json has
 * `indexer_types`. None of its command-line tools sets an array, so that a finished file is rewritten with its Python package.
 */
import { builtSchedule } from "../derived-types.ts";
import type { Dialect, Engine } from "../dialect.ts";
import { type IndexFields, indexerTypes, lettersOfTypes } from "../index-fields.ts";
import { everyIndexer } from "../rules.ts";

const KEY = "glm-dsa.attention.indexer.types";

const dialect: Dialect = {
  engine: "llama.cpp",
  title: "llama.cpp",
  readFrom: "main at 06e514f6 (after #25407): src/models/glm-dsa.cpp, conversion/glm.py, gguf-py 0.19",
  refusal: ({ modelType }) => {
    if (modelType === undefined || modelType === "glm_moe_dsa") return undefined;
    return modelType === "deepseek_v32"
      ? "llama.cpp's DeepSeek-V3.2 has no sharing: every layer runs its indexer"
      : `llama.cpp shares indices of glm_moe_dsa only, not of ${modelType}`;
  },
  caveats: () => [
    "the key belongs into the first file of a split GGUF; a GGUF that is converted from a checkpoint of `indexcache pattern apply` has it already",
  ],
  fields: (pattern) => ({ indexer_types: indexerTypes(pattern) }),
  strongerField: "indexer_types",
  // The converter copies the list of config.json as it stands, and nothing else of it: no list, no key, every layer Full.
  schedule: (override, model) => {
    const fields = { ...model.fields, ...override };
    if (fields.indexer_types == null) return everyIndexer(model.layers);
    if (fields.indexer_types.length !== model.layers) {
      return { failure: `${KEY} has ${fields.indexer_types.length} entries for ${model.layers} layers` };
    }
    return builtSchedule(fields, model);
  },
  leadingShared: "llama.cpp has no indices for the first layer: the graph cannot be built",
  argument: (fields) => pythonRewrite(fields),
  instead: "metadata of the GGUF file",
  facts: {
    gate: `none; without ${KEY} every layer is Full, and a file whose context is 1M or longer gets GLM-5.2's schedule`,
    shortPattern: "the file is refused: the array must have an entry for each backbone layer",
    prediction: "NextN layers are not loaded and have no entry",
    pipeline: "layers are split over devices inside one graph: no stages",
  },
};

export const llamaCpp: Engine = { engine: dialect.engine, title: dialect.title, at: () => dialect };

/** A call of gguf-py's own rewriter, which its command line offers for single values only. */
function pythonRewrite(fields: IndexFields): string[] {
  const letters = lettersOfTypes(fields.indexer_types ?? []) ?? "";
  return [
    "python3 - model.gguf model-shared.gguf <<'PY'   # pip install gguf",
    "import sys, gguf",
    "from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata",
    `index_topk_pattern = "${letters}"`,
    `key, types = "${KEY}", [letter == "F" for letter in index_topk_pattern]`,
    "reader = gguf.GGUFReader(sys.argv[1])",
    'writer = gguf.GGUFWriter(sys.argv[2], arch=reader.get_field("general.architecture").contents(), endianess=reader.endianess)',
    "details = MetadataDetails(gguf.GGUFValueType.ARRAY, types, sub_type=gguf.GGUFValueType.BOOL)",
    "copy_with_new_metadata(reader, writer, {key: details}, [])",
    "PY",
  ];
}
