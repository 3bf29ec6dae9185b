/** What a search is about: read and checked before anything long begins. */

import { UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { type CalibrationMix, sourceFactors } from "../../calibration/mix.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Rehearsal } from "../../search/events.ts";
import { parseTargets } from "../../search/retain.ts";
import { rehearse, requireFeasible, sequencesAtOnce } from "../../search/search.ts";
import type { SearchMethod } from "../../search/strategy.ts";
import {
  measuredObjective,
  objectiveOf,
  openCalibrationMix,
  type SearchObjective,
} from "../arguments/calibration-mix.ts";
import { EarlyStart, foreseenLengths } from "../arguments/early.ts";
import { identityRecord, openDevices } from "../arguments/inputs.ts";
import { openModelForLosses } from "../arguments/memory.ts";
import { demoModel } from "../arguments/options.ts";
import { requireWritable } from "../console/output-file.ts";
import type { Terminal } from "../console/terminal.ts";
import { openServedFolder } from "../live/server-options.ts";
import { openServer } from "../live/server-source.ts";
import { type LossSource, localLosses } from "../loss-source.ts";
import { constraintSettings, patternSpaceOf } from "./constraints.ts";
import { fullLayersOfSpeedup, readPredictedLatency } from "./predicted-latency.ts";
import { type SearchFlags, splitSequences } from "./search-options.ts";
import { methodOf, methodSettings } from "./strategy-options.ts";

/** By which losses are opened. */
interface Prepared {
  method: SearchMethod;
  sequences: readonly number[];
  foreseen: Rehearsal;
}

/** Where losses come from: the weights, or a server that has them. It is to be released. */
interface Opened {
  /** As it was given. */
  path: string;
  model: ModelDescription;
  /** The pattern that a search sets out from. */
  start: Pattern;
  /** Layers that stay Full because a rank of the server begins there. */
  pinned: readonly number[];
  /** Tells GPUs that are opened early what to expect. */
  foresee(method: SearchMethod, objective: SearchObjective): Promise<void>;
  open(set: CalibrationMix, prepared: Prepared): Promise<LossSource>;
  release(): Promise<void>;
}

export async function openSource(path: string | undefined, flags: SearchFlags, terminal: Terminal): Promise<Opened> {
  const { server } = flags;
  if (server === undefined) return await openLocal(path ?? demoModel, flags, terminal);
  const model = await openServedFolder(path, terminal);
  const { served, source } = await openServer({ ...flags, server }, model, terminal);
  return {
    path: path ?? demoModel,
    model,
    start: served.ownPattern,
    pinned: served.pinned,
    foresee: async () => {},
    open: async (set, { sequences }) => source(set, sequences),
    release: () => served.release(),
  };
}

async function openLocal(path: string, flags: SearchFlags, terminal: Terminal): Promise<Opened> {
  const early = new EarlyStart("losses", flags, terminal);
  const { model, device } = await openModelForLosses(path, flags, terminal);
  const { indexerLayers, numHiddenLayers } = model.config;
  return {
    path,
    model,
    start: indexerLayers,
    pinned: [],
    foresee: async (method, objective) => {
      const lengths = await foreseenLengths(model, flags);
      if (lengths === undefined) return;
      const { search } = splitSequences([[...lengths.keys()]], flags.holdout, flags.seed);
      const together = sequencesAtOnce(method, search.length);
      await early.foreseeLosses(model, lengths, { objective: measuredObjective(objective), together });
    },
    open: async (set, { sequences, method, foreseen }) => {
      const passed = (foreseen.layers / numHiddenLayers) * set.sequenceLength;
      const place = await openDevices({ ...flags, device }, terminal, {
        work: { model, amount: () => ({ passed, sideBySide: sequences.length }) },
        onTrial: early.onTrial,
      });
      await model.checkWeights();
      const together = sequencesAtOnce(method, sequences.length);
      const { dtype, memory } = flags;
      return localLosses(model, set, { ...place, dtype, memory, together, early: early.at(place) }, terminal);
    },
    release: async () => {},
  };
}

export async function prepareSearch(
  { path, model, start, pinned, foresee, open }: Opened,
  flags: SearchFlags,
  terminal: Terminal,
) {
  const objective = objectiveOf(flags);
  const method = methodOf({ ...flags, objective }, (message) => terminal.warn(message));
  const { numHiddenLayers, indexTopk } = model.config;
  const space = patternSpaceOf(start, flags, method, pinned);
  const predicted = await readPredictedLatency(flags);
  const targets = parseTargets(flags.retain, numHiddenLayers, { fewest: space.fewest, most: space.size }, (part) =>
    fullLayersOfSpeedup(part, numHiddenLayers, predicted),
  );
  // Refused before texts are read and weights are loaded.
  requireFeasible(method, space, targets);
  for (const file of flags.dryRun === true ? [] : [flags.output, flags.pareto]) {
    await requireWritable(file);
  }
  await foresee(method, objective);
  const set = await openCalibrationMix(model, flags, terminal);
  if (method.across === "worst" && set.sources.length === 1) {
    throw new UsageError(`--across worst needs several sources to compare, and -c names only ${quoted(set.source)}`);
  }
  const { search: sequences, heldOut } = splitSequences(
    set.sources.map((source) => source.sequences),
    flags.holdout,
    flags.seed,
  );
  if (heldOut.length > 0) terminal.note(`held out: ${heldOut.length} of the sequences`);
  const identity = await identityRecord(model);
  /** Times that a server's noisy measurements are repeated. */
  const repeats = flags.server === undefined ? undefined : flags.repeats;
  const foreseen = await rehearse(method, { space, targets, sequences, repeats });
  return {
    /** As it was given. */
    path,
    model,
    source: await open(set, { method, sequences, foreseen }),
    identity,
    method,
    objective,
    repeats,
    foreseen,
    /** As the journal and the pattern file name them. */
    settings: {
      ...methodSettings(method),
      ...constraintSettings(flags),
      ...(flags.holdout === undefined ? {} : { holdout: flags.holdout, seed: flags.seed }),
      ...(set.sources.length === 1 ? {} : { weights: describeWeights(set) }),
    },
    space,
    targets,
    set,
    /** What the tokens of some sequences are multiplied by, so that each source has its weight. */
    weigh: (indices: readonly number[]) =>
      sourceFactors(set.sources, indices, (index) => scoredTokens(set, index, flags.server && indexTopk)),
    sequences,
    heldOut,
    predicted,
    flags,
    terminal,
  };
}

export type SearchWork = Awaited<ReturnType<typeof prepareSearch>>;

/** Weights and numbers of sequences, source by source: `0.5x16 0.5x32`. */
function describeWeights({ sources }: CalibrationMix): string {
  return sources.map(({ weight, sequences }) => `${Number(weight.toFixed(6))}x${sequences.length}`).join(" ");
}

/** Tokens of a sequence that count; a server scores none before `index_topk`. */
function scoredTokens({ windows, scoredFrom }: CalibrationMix, index: number, least: number | "" | undefined): number {
  return (windows[index]?.length ?? 0) - Math.max(scoredFrom[index] ?? 1, least || 1);
}
