/**
 * Ends the process where one case holds it: a loop without end in this thread can be seen from another one only. What was
 * tried is on stderr then.
 */
import { writeSync } from "node:fs";
import { Worker } from "node:worker_threads";

const SECONDS = 120;

const guard = `
  const { parentPort } = require("node:worker_threads");
  const { writeSync } = require("node:fs");
  let current;
  parentPort.on("message", (text) => { current = text === undefined ? undefined : { text, since: Date.now() }; });
  setInterval(() => {
    if (current === undefined || Date.now() - current.since < ${SECONDS * 1000}) return;
    writeSync(2, "no end within ${SECONDS} s: " + current.text + "\\n");
    process.kill(process.pid, "SIGKILL");
  }, 1000);
`;

export class Watchdog {
  readonly #worker = new Worker(guard, { eval: true });

  constructor() {
    this.#worker.unref();
    this.#worker.on("error", (error) => writeSync(2, `${error}\n`));
  }

  watch(text: string | undefined): void {
    this.#worker.postMessage(text);
  }
}
