import { expect, test } from "vitest";
import { evalResultJsonSchema } from "../../src/formats/eval-result.ts";

test("docs/eval.schema.json is the schema of result files", async () => {
  await expect(evalResultJsonSchema()).toMatchFileSnapshot("../../docs/eval.schema.json");
});
