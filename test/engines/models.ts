/** Models as engines see them. */
import { modelOfLayers, parseServedModel, type ServedModel } from "../../src/engines/served-model.ts";

export const glm5: ServedModel = modelOfLayers(78, "glm_moe_dsa");

export const deepseekV32: ServedModel = modelOfLayers(61, "deepseek_v32");

/** GLM-5.2 was trained with sharing: 21 Full layers, `index_topk_freq` 4 with offset 3. */
export const glm52Pattern = "FFFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSS";

/** DeepSeek-V4-Flash: 43 layers, an indexer on the even ones from 2 to 42; one more entry for its MTP layer. */
export const v4Flash: ServedModel = parseServedModel(
  JSON.stringify({
    model_type: "deepseek_v4",
    num_hidden_layers: 43,
    num_nextn_predict_layers: 1,
    compress_ratios: Array.from({ length: 44 }, (_, layer) => (layer < 2 ? 0 : layer % 2 === 0 ? 4 : 128)),
  }),
  "v4-flash/config.json",
);

/** A model whose config.json says these fields. */
export function glmConfig(fields: object, layers = 10): ServedModel {
  return parseServedModel(
    JSON.stringify({ model_type: "glm_moe_dsa", num_hidden_layers: layers, ...fields }),
    "glm/config.json",
  );
}
