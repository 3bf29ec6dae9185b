/** RULER, whole and the part of it that needs no data. */
import type { Suite } from "../item.ts";
import { chooseTasks, defineSuite } from "../suite-definition.ts";
import { type RulerOptions, rulerOptions } from "./options.ts";
import { openPreparedRuler } from "./prepared.ts";
import { openGeneratedRuler } from "./suite.ts";
import { coreTasks, type RulerTask, rulerTasks } from "./tasks.ts";

function open(name: string, all: readonly RulerTask[], options: RulerOptions): Promise<Suite> {
  const tasks = chooseTasks(all, name, options);
  return options.data === undefined
    ? openGeneratedRuler(name, tasks, options)
    : openPreparedRuler(name, tasks, options.data, options);
}

export const rulerCoreSuite = defineSuite({
  name: "ruler-core",
  help: "RULER's six tasks that need no data: needles, variable tracking, word counts",
  options: rulerOptions,
  offline: true,
  list: () => coreTasks.map((task) => ({ task, data: "nothing" })),
  tasks: () => [...rulerTasks],
  open: (options) => open("ruler-core", coreTasks, options),
});

export const rulerSuite = defineSuite({
  name: "ruler",
  help: "all thirteen tasks of RULER; seven need --essays, --squad or --hotpotqa",
  options: rulerOptions,
  list: () => rulerTasks.map((task) => ({ task, data: task.flag ?? "nothing" })),
  tasks: () => [...rulerTasks],
  open: (options) => open("ruler", rulerTasks, options),
});
