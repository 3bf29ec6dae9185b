/** `indexcache search --dry-run`: what there is to do, and how long one evaluation says that it will take. */
import { defaultSequenceLength } from "../../calibration/calibration-set.ts";
import { declaredWeights } from "../../checkpoint/bind-weights.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { describeModel, openModel } from "../../graph/model-folder.ts";
import { formatSearchPlan, searchPlanRecord, weightsRecord } from "../../report/search/search-plan.ts";
import { availableMemory } from "../../runtime/device/host-memory.ts";
import { hasRoomOnGpu } from "../../runtime/device/model-memory.ts";
import { modelSizes } from "../../runtime/device/model-sizes.ts";
import { weightNeeds } from "../../runtime/loss/weight-needs.ts";
import { sizesOf } from "../../runtime/loss/weight-room.ts";
import type { LayerLoads, PatternEvaluator } from "../../runtime/measurement.ts";
import { parseTargets } from "../../search/retain.ts";
import { rehearse } from "../../search/search.ts";
import { objectiveOf } from "../arguments/calibration-mix.ts";
import { demoModel } from "../arguments/options.ts";
import { findFolder } from "../arguments/weightless.ts";
import type { Terminal } from "../console/terminal.ts";
import { constraintSettings, patternSpaceOf } from "./constraints.ts";
import { type SearchFlags, splitSequences } from "./search-options.ts";
import type { SearchWork } from "./search-work.ts";
import { methodOf, methodSettings } from "./strategy-options.ts";

export async function showPlan(work: SearchWork, evaluator: PatternEvaluator): Promise<void> {
  const { foreseen, space, sequences, terminal } = work;
  const { seconds, executions } = await evaluator.evaluate(space.start, { sequences, signal: terminal.signal });
  const { loads } = executions;
  const computing = seconds - (loads?.seconds ?? 0);
  const perLayer = computing / (space.start.length * sequences.length);
  const record = searchPlanRecord(work, {
    seconds_per_evaluation: seconds,
    seconds: perLayer * foreseen.layers + (loads === undefined ? 0 : loads.seconds * foreseen.passes),
    memory: evaluator.plan,
    weights: loads && (await measuredWeights(work, loads)),
  });
  terminal.answer(record, () => formatSearchPlan(record, terminal.resultWidth));
}

/** What was measured takes the place of what is assumed. */
async function measuredWeights({ path, foreseen, set, flags }: SearchWork, loads: LayerLoads) {
  const model = await openModel(await findModel(path));
  const sizes = modelSizes(await model.weights());
  const lengths = set.windows.map(({ length }) => length);
  const needs = weightNeeds(model.config, sizes, lengths, flags.memory ?? availableMemory());
  const { passes } = foreseen;
  return weightsRecord(needs, { passes, seconds_per_pass: loads.seconds, measured: true, known_from: "weights" });
}

/** Assumed of a drive that is not here: an NVMe one. */
const readRate = 3e9;
/**
 * Bytes of what is loaded that one core makes a second, out of what is read: casting, transposing and packing. Measured with
 * ONNX Runtime 1.30 on a core of 2 GHz.
 */
const packRate = 0.3e9;
/** Sequences where no text says how many: what `--sequences` is usually set to. */
const usualSequences = 16;

/**
 * Shows the plan of a search that cannot be timed here, if that is so: there are no weights, or no room for a layer of them.
 * @returns whether it was shown
 */
export async function showPlanOfConfig(
  path: string | undefined,
  flags: SearchFlags,
  terminal: Terminal,
): Promise<boolean> {
  const { folder, hasWeights: isHere } = await findFolder(path ?? demoModel);
  const memory = flags.memory ?? availableMemory();
  const { config } = await describeModel(folder);
  const sizes = isHere ? await sizesOf(await openModel(folder)) : modelSizes(declaredWeights(config));
  if (sizes === undefined) return false;
  const count = flags.sequences ?? usualSequences;
  const length = flags.sequenceLength ?? defaultSequenceLength(config);
  const needs = weightNeeds(config, sizes, new Array<number>(count).fill(length), memory);
  const onGpu =
    flags.devices !== undefined ||
    (flags.device === "auto"
      ? isHere && (await hasRoomOnGpu(await openModel(folder), flags.dtype))
      : flags.device !== "cpu");
  const runsHere = isHere && (needs.whole <= memory || needs.inTurn !== undefined || onGpu);
  if (runsHere) return false;
  const method = methodOf({ ...flags, objective: objectiveOf(flags) }, (message) => terminal.warn(message));
  const space = patternSpaceOf(config.indexerLayers, flags, method, []);
  const targets = parseTargets(flags.retain, config.numHiddenLayers, { fewest: space.fewest, most: space.size });
  const { search: sequences, heldOut } = splitSequences([[...new Array(count).keys()]], flags.holdout, flags.seed);
  const foreseen = await rehearse(method, { space, targets, sequences });
  const passBytes = needs.inTurn?.pass;
  const settings = { ...methodSettings(method), ...constraintSettings(flags) };
  const planned = { method, foreseen, space, targets, sequences, heldOut, identity: config, settings };
  const record = searchPlanRecord(planned, {
    sequence_length: length,
    weights: weightsRecord(needs, {
      passes: foreseen.passes,
      seconds_per_pass: passBytes && passBytes.stored / readRate + passBytes.loaded / packRate,
      measured: false,
      known_from: isHere ? "weights" : "config.json",
      teraflops_per_layer_run: (2 * activeElements(config) * length) / 1e12,
    }),
  });
  terminal.answer(record, () => formatSearchPlan(record, terminal.resultWidth));
  return true;
}

/** Parameters that a token meets in a layer, on average over layers. */
function activeElements(config: DsaConfig): number {
  const { nRoutedExperts, numExpertsPerTok } = config;
  const layers = modelSizes(declaredWeights(config)).bodies;
  const total = layers.reduce((sum, { loaded }) => sum + loaded, 0) / 4;
  const experts =
    2 *
    config.sparseLayers.filter((isSparse) => isSparse).length *
    nRoutedExperts *
    3 *
    config.moeIntermediateSize *
    config.hiddenSize;
  return (total - experts + (experts / 2) * (numExpertsPerTok / Math.max(1, nRoutedExperts))) / layers.length;
}
