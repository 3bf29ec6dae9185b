/** `eval --from`: a result without a model, from saved samples or a result file. */
import { open } from "node:fs/promises";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";
import { pairSaved } from "../eval/run/saved-samples.ts";
import { findTask, isSuiteName } from "../eval/suites.ts";
import { type EvalResult, readEvalResult } from "../formats/eval-result.ts";
import { readSamples } from "../formats/sample-journal.ts";
import { evalRecord } from "../report/eval-record.ts";
import { statisticsOf } from "./eval-statistics.ts";
import { demoPatternName, type EvalFlags } from "./eval-options.ts";
import { runtimeName } from "./runtime-name.ts";
import type { Terminal } from "./terminal.ts";
