/** Where a training step finds the hidden states of its layers. */
import { expect, test } from "vitest";
import { planFor } from "../../src/cli/distill/distill-needs.ts";
import { defaultRecipe } from "../../src/distill/recipe.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { fixturePath } from "../oracle.ts";

test("a CPU reads the states of every layer, a GPU that holds a group computes them, unless the user says otherwise", async () => {
  const { config } = await openModel(fixturePath("glm-groups"));
  const counts = { sequences: 10, heldOut: 2, length: 28 };
  const recipe = { ...defaultRecipe, batch: 2, seed: 0, weight: "values" } as const;
  const plan = (...[devices, asked]: [Parameters<typeof planFor>[4], Parameters<typeof planFor>[5]?]) =>
    planFor(config, parsePattern("FSSFS"), recipe, counts, devices, asked);
  const [cpu, gpu] = [await plan(["cpu"]), await plan(["cuda:0"])];
  expect(cpu).toMatchObject({ stepStates: "stored", boundaries: 3 });
  expect(gpu).toMatchObject({ stepStates: "computed", boundaries: 2 });
  expect(gpu.training.weights).toBeGreaterThan(cpu.training.weights);
  expect(gpu.operations.training).toBeGreaterThan(cpu.operations.training);
  expect((await plan(["cuda:0"], "stored")).stepStates).toBe("stored");
  // Several devices need the states of all groups at once.
  expect((await plan(["cpu", "cpu"])).boundaries).toBe(5);
  expect((await plan(["cuda:0", "cuda:1"])).boundaries).toBe(2);
});
