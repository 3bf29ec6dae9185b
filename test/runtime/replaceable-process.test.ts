import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { expect, test } from "vitest";
import { InterruptedError, RuntimeFailure } from "../../src/base/errors.ts";
import { ReplaceableProcess } from "../../src/runtime/process/replaceable-process.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("file");

/** Asks children that end by this signal before they serve; gives what is thrown, and how many took the place of others. */
async function outcomeOf(signal: NodeJS.Signals): Promise<{ error: unknown; replaced: number }> {
  const program = join(folder, `${signal}.mjs`);
  await writeFile(program, `process.kill(process.pid, "${signal}");`);
  let replaced = 0;
  const onReplacement = (): void => void replaced++;
  const worker = new ReplaceableProcess({ name: "worker", program, opening: {}, hint: "give up", onReplacement });
  const error = await worker.inTurn(async () => undefined).catch((thrown: unknown) => thrown);
  worker.end();
  return { error, replaced };
}

test.skipIf(process.platform === "win32")(
  "a child that Ctrl-C ends as it starts is not replaced, any other is",
  async () => {
    expect(await outcomeOf("SIGINT")).toEqual({ error: expect.any(InterruptedError), replaced: 0 });
    expect(await outcomeOf("SIGKILL")).toEqual({ error: expect.any(RuntimeFailure), replaced: 2 });
  },
);
