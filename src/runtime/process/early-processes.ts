/** Processes that are started while what they will do is still being read: one for each device of a command. */
import { EarlyProcess } from "./replaceable-process.ts";

export class EarlyProcesses {
  /** In the order of the devices. */
  readonly processes: readonly EarlyProcess[];

  /** @param program as `ReplaceableSettings.program` */
  constructor(program: string, count: number) {
    this.processes = Array.from({ length: count }, () => new EarlyProcess(program));
  }

  /** Ends those that nobody took. */
  end(): void {
    for (const process of this.processes) process.end();
  }
}
