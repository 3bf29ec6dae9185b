/** Options that may be given several times: each time adds to a list. */
import { Option } from "commander";

export class RepeatableOption extends Option {
  constructor(flags: string, description: string) {
    super(flags, description);
    this.argParser((value: string, previous: string[]) => [...previous, value]).default([]);
  }
}
