/**
 * Graphs of GPUs cannot be run everywhere: their nodes are compared with those that have been (docs/log.md). After a
 * deliberate change: `npx vitest run test/graph/graph-families.test.ts -u`. With GRAPHS=FOLDER every graph's canonical form
 * is written there, for a diff.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { canonicalLines, graphDigest } from "./canonical-graph.ts";
import { familyGraphs, familyModels } from "./graph-families.ts";

test.each(familyModels)(
  "graphs of $name have the nodes that they had",
  async (model) => {
    const lines: string[] = [];
    for (const [family, make] of familyGraphs(model)) {
      const graph = await make();
      lines.push(`${graphDigest(graph)} ${family}`);
      if (process.env.GRAPHS === undefined) continue;
      const folder = join(process.env.GRAPHS, model.name);
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, `${family}.txt`), canonicalLines(graph).join("\n"));
    }
    await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot(`graph-digests/${model.name}.txt`);
  },
  240_000,
);
