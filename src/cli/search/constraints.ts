/** Options that say which patterns a deployment can take. */

import { InvalidArgumentError } from "commander";
import { UsageError } from "../../base/errors.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { pipelineEngines, requiredFull, stageStarts } from "../../pattern/pipeline-stages.ts";
import { PatternSpace } from "../../search/space.ts";
import { type SearchMethod, strategySettings } from "../../search/strategy.ts";
import { choice, type Flags, group, option } from "../arguments/declared-option.ts";
import { layerCount } from "../arguments/options.ts";

export const constraintOptions = group(
  "What the deployment allows:",
  option("--pin-full <layers>", "layers that stay Full: 0,1,30", layerList),
  option(
    "--pipeline-stages <n>",
    "stages that the model is served in; each begins Full where --engine asks for it",
    layerCount,
  ),
  choice("--engine <name>", "whose stages: they divide layers differently", pipelineEngines),
  option("--pipeline-starts <layers>", "first layers of stages, by hand: 0,16,31,46", layerList),
  option("--max-shared-run <n>", "Shared layers that may stand in a row", layerCount),
);

type ConstraintFlags = Flags<typeof constraintOptions>;

/**
 * The patterns that the options leave.
 * @param servedStarts first layers of the ranks of a server
 * @throws UsageError for options that do not go together, or that no pattern of this model meets
 */
export function patternSpaceOf(
  start: Pattern,
  flags: ConstraintFlags,
  method: SearchMethod,
  servedStarts: readonly number[] = [],
): PatternSpace {
  const { pinFull = [], pipelineStages: stages, engine, pipelineStarts = [], maxSharedRun } = flags;
  if (engine !== undefined && stages === undefined) throw new UsageError("--engine needs --pipeline-stages");
  if (stages !== undefined && engine === undefined) {
    throw new UsageError(
      `--pipeline-stages needs --engine (${pipelineEngines.join(", ")}): they divide layers differently`,
    );
  }
  const layers = start.length;
  const pinned = new Map<number, string>();
  const pin = (some: readonly number[], why: string): void => {
    for (const layer of some) if (layer > 0) pinned.set(layer, pinned.get(layer) ?? why);
  };
  pin(pinFull, "--pin-full");
  pin(pipelineStarts, "--pipeline-starts");
  pin(servedStarts, "--server, where a pipeline stage begins");
  if (stages !== undefined && engine !== undefined) {
    pin(requiredFull(engine, stageStarts(engine, layers, stages)), `--pipeline-stages ${stages} --engine ${engine}`);
  }
  pin(method.strategy.pinned?.(start, strategySettings(method)) ?? [], `--strategy ${method.strategy.name}`);
  return new PatternSpace(start, { pinned, ...(maxSharedRun === undefined ? {} : { maxSharedRun }) });
}

/** What files say of the constraints; those that were not given are left out. */
export function constraintSettings(flags: ConstraintFlags): Record<string, string | number | boolean> {
  const { pinFull, pipelineStages, engine, pipelineStarts, maxSharedRun } = flags;
  return withoutUndefined({
    pin_full: pinFull?.join(","),
    pipeline_stages: pipelineStages,
    engine,
    pipeline_starts: pipelineStarts?.join(","),
    max_shared_run: maxSharedRun,
  });
}

function layerList(text: string): number[] {
  const layers = text.split(",").map((part) => part.trim());
  if (!layers.every((part) => /^\d+$/.test(part))) {
    throw new InvalidArgumentError("It must be layer numbers with commas between: 0,16,31.");
  }
  return [...new Set(layers.map(Number))].sort((left, right) => left - right);
}
