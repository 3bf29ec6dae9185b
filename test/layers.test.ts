/** The direction of dependency, as docs/design.md draws it: biome refuses an import that points up, and this shows that it does. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

const forbidden = [
  ["base", "../../pattern/pattern.ts"],
  ["pattern", "../../formats/journal.ts"],
  ["checkpoint", "../../engines/engines.ts"],
  ["engines", "../../runtime/loss.ts"],
  ["graph", "../../engines/engines.ts"],
  ["graph", "../../runtime/loss.ts"],
  ["search", "../../runtime/measurement.ts"],
  ["search", "../../calibration/windows.ts"],
  ["runtime", "../../search/greedy.ts"],
  ["runtime", "../../distill/recipe.ts"],
  ["distill", "../../search/greedy.ts"],
  ["report", "../../cli/program.ts"],
  ["report", "ink"],
  ["runtime", "commander"],
  ["calibration", "onnxruntime-node"],
  ["serve", "../../engines/engines.ts"],
  ["serve", "../../search/retain.ts"],
  ["serve", "../../report/quantities.ts"],
  ["runtime", "../../serve/model-runner.ts"],
  ["report", "../../serve/model-runner.ts"],
  ["report", "hono"],
  ["live", "../../search/retain.ts"],
  ["live", "../../calibration/windows.ts"],
  ["search", "../../live/server-losses.ts"],
  ["runtime", "../../live/server-losses.ts"],
  ["report", "undici"],
] as const;

test.each(forbidden)("src/%s may not import %s", async (room, target) => {
  const folder = await mkdtemp(join(root, "src", room, "layer-probe-"));
  try {
    await writeFile(join(folder, "probe.ts"), `import * as target from "${target}";\n\nexport const names = target;\n`);
    const lint = promisify(execFile)(join(root, "node_modules", ".bin", "biome"), ["lint", folder], { cwd: root });
    await expect(lint).rejects.toMatchObject({ stderr: expect.stringContaining("noRestrictedImports") });
  } finally {
    await rm(folder, { recursive: true });
  }
});
