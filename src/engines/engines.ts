/** Every serving engine that indexcache writes patterns for. */
import { UsageError } from "../base/errors.ts";
import type { Dialect, Engine } from "./dialect.ts";
import { atom } from "./dialects/atom.ts";
import { llamaCpp } from "./dialects/llama-cpp.ts";
import { lmdeploy } from "./dialects/lmdeploy.ts";
import { sglang } from "./dialects/sglang.ts";
import { tensorrtLlm } from "./dialects/tensorrt-llm.ts";
import { transformers } from "./dialects/transformers.ts";
import { vllm } from "./dialects/vllm.ts";
import { vllmAscend } from "./dialects/vllm-ascend.ts";
import { xllm } from "./dialects/xllm.ts";
import { compareReleases, parseRelease } from "./release.ts";

const engines = {
  vllm,
  sglang,
  transformers,
  "tensorrt-llm": tensorrtLlm,
  "vllm-ascend": vllmAscend,
  atom,
  lmdeploy,
  xllm,
  "llama.cpp": llamaCpp,
} satisfies Readonly<Record<string, Engine>>;

export type EngineName = keyof typeof engines;

/** In the order of every list. */
export const engineNames = Object.keys(engines) as EngineName[];

/** The rules of the newest release of each engine that is known here. */
export const dialects = Object.fromEntries(
  engineNames.map((name) => {
    const { releases, at }: Engine = engines[name];
    return [name, at(releases === undefined ? [] : parseRelease(releases.newest))];
  }),
) as Readonly<Record<EngineName, Dialect>>;

/**
 * The rules of one release of an engine, the newest where nothing is said.
 * @returns `note`: what to know where the release itself was not read
 * @throws UsageError for a release older than those that were read, or of an engine without releases here
 */
export function dialectAt(engine: EngineName, version?: string): { dialect: Dialect; note?: string } {
  if (version === undefined) return { dialect: dialects[engine] };
  const { title, releases, at }: Engine = engines[engine];
  if (releases === undefined) {
    throw new UsageError(
      `The rules of ${title} were read from ${dialects[engine].readFrom}; releases of it are not told apart here`,
      { hint: "leave out --engine-version" },
    );
  }
  const release = parseRelease(version);
  if (compareReleases(release, parseRelease(releases.oldest)) < 0) {
    throw new UsageError(
      `${title} ${version} is older than any release that was read: ${releases.oldest} is the oldest`,
    );
  }
  const dialect = at(release);
  if (compareReleases(release, parseRelease(releases.newest)) > 0) {
    return {
      dialect,
      note: `${title} ${version} is newer than any release that was read; the rules are those of ${releases.newest}`,
    };
  }
  const isRead = releases.read.some((read) => compareReleases(parseRelease(read), release) === 0);
  return isRead
    ? { dialect }
    : { dialect, note: `${title} ${version} itself was not read; those around it were (${releases.read.join(", ")})` };
}
