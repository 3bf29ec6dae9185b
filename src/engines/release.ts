/**
 * Releases of serving engines. An engine's rules changed more than once; each is written down with the releases that it
 * holds for, and a user says which one runs (`--engine-version`, the newest known where nothing is said).
 */
import { UsageError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";

/** Numbers of a release: [0, 5, 20] for 0.5.20. */
export type Release = readonly number[];

/** The releases of an engine whose source was read. */
export interface ReleasesRead {
  oldest: string;
  newest: string;
  /** Every release that was looked at. */
  read: readonly string[];
}

/**
 * Reads a release as package indexes and tags spell it: `0.33.0`, `v0.5.20`, `0.5.15.post1`, `5.24.0rc1`.
 * @throws UsageError for anything else
 */
export function parseRelease(text: string): Release {
  const match = /^v?(\d{1,6}(?:\.\d{1,6}){0,3})(?:[.+-]?[a-z][\w.+-]{0,60})?$/i.exec(text.trim());
  if (match?.[1] === undefined) {
    throw new UsageError(`${quoted(text)} is no version of an engine`, { hint: "write it like 0.33.0" });
  }
  return match[1].split(".").map(Number);
}

/** Negative, 0 or positive, as `left` is older than `right`, the same, or newer. */
export function compareReleases(left: Release, right: Release): number {
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Is the release `since` or newer? */
export function isSince(release: Release, since: string): boolean {
  return compareReleases(release, parseRelease(since)) >= 0;
}
