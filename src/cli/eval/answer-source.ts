/** Where the answers of an evaluation come from: this tool's own runtime, or a server. */
import { UsageError } from "../../base/errors.ts";
import type { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import type { SampleFingerprint } from "../../formats/sample-journal.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { cacheForm } from "../../runtime/device/frame-choice.ts";
import type { ArmRunner } from "../../runtime/generate/arms.ts";
import { openArms } from "../../runtime/generate/parallel-arms.ts";
import type { LossPlace } from "../../runtime/loss/loss-evaluator.ts";
import type { ComputeDevice, Dtype } from "../../runtime/measurement.ts";
import type { EarlyProcesses } from "../../runtime/process/early-processes.ts";
import { runtimeName } from "../../runtime/session/runtime-name.ts";

export interface AnswerSource {
  /** Positions that a prompt and its answer may take. */
  window: number;
  /** What decides outputs, beside model and prompts; for journals and results. */
  settings: SampleFingerprint["settings"];
  runtime: string;
  /** What a reader of the scores has to know. */
  notes: readonly string[];
  /** @throws UsageError for a pattern that cannot be run there */
  require(pattern: Pattern): void;
  /** @param onReplacement hears of processes that are started anew, where there are any */
  open(
    patterns: readonly Pattern[],
    tokenizer: Tokenizer,
    onReplacement: ((words: string) => void) | undefined,
  ): Promise<ArmRunner>;
  /** After the runner's own release, or of what was never opened. */
  release(): Promise<void>;
}

/**
 * @param early processes that were started before
 * @throws UsageError for a dtype that these devices do not generate in
 */
export function localAnswers(
  model: ModelFolder,
  place: LossPlace & { threads?: number; dtype: Dtype },
  early?: EarlyProcesses,
): AnswerSource {
  const device = kindOfDevices(place);
  cacheForm(device, place.dtype);
  return {
    window: model.config.maxPositionEmbeddings,
    // Another kind of device rounds otherwise: a near tie may fall to another token, and pairs would mix the two.
    settings: { device, dtype: place.dtype },
    runtime: runtimeName,
    notes: [],
    require() {},
    open: (patterns, tokenizer, onReplacement) =>
      openArms(model, tokenizer, patterns, {
        ...place,
        early,
        ...(onReplacement === undefined ? {} : { onReplacement }),
      }),
    async release() {},
  };
}

/** @throws UsageError for devices of several kinds */
function kindOfDevices(place: LossPlace): ComputeDevice {
  const devices = "devices" in place ? place.devices : [place.device];
  const kinds = [...new Set(devices.map((device) => device.split(":")[0] as ComputeDevice))];
  const [kind = "cpu"] = kinds;
  if (kinds.length === 1) return kind;
  throw new UsageError(
    `--devices names ${kinds.join(" and ")}: samples of different kinds of devices cannot be paired`,
  );
}
