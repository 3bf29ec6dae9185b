/** The strategies that only `tools/landscape` has: JavaScript, so that Node runs it as it is. */
import type { Direction } from "../../src/search/space.ts";
import type { Strategy } from "../../src/search/strategy.ts";

interface Comparators {
  forward: Strategy;
  floating: Strategy;
  beam(width: number, direction: Direction): Strategy;
  withSwaps(strategy: Strategy, settings?: { pairs?: boolean }): Strategy;
}

const path = new URL("../../tools/landscape/comparators.js", import.meta.url).href;
export const { forward, floating, beam, withSwaps } = (await import(path)) as Comparators;
