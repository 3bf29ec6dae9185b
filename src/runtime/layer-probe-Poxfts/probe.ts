import * as target from "../../search/greedy.ts";

export const names = target;
