/** Programs of threads. */
import { existsSync } from "node:fs";

/**
 * The compiled program beside a module, also where that module runs from its source, as in tests.
 * @param module its `import.meta.url`
 */
export function builtProgram(name: string, module: string): URL {
  const beside = new URL(name, module);
  if (existsSync(beside)) return beside;
  return new URL(`../../dist${beside.href.slice(sourceFolder.length)}`, import.meta.url);
}

/** The folder of rooms that this module's own room lies in. */
const sourceFolder = new URL("..", import.meta.url).href.replace(/\/$/, "");
