/** The strategies that `--strategy` chooses from, the default first. docs/add-a-strategy.md says how to add one. */

import type { Strategy } from "../strategy.ts";
import { blockwise } from "./blockwise.ts";
import { exhaustive } from "./exhaustive.ts";
import { greedy } from "./greedy.ts";
import { refine } from "./refine.ts";

export const strategies: readonly [Strategy, ...Strategy[]] = [refine, greedy, blockwise, exhaustive];
