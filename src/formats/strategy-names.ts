/** Names of search strategies in journals, pattern files and command lines of earlier versions. */

const renamed = new Map([["look-again", "refine"]]);
/** No measurement favoured them over `refine`; `tools/landscape` still compares them. */
const removed = ["forward", "beam", "floating"];

/** The name that a strategy has now. */
export function currentStrategyName(name: string): string {
  return renamed.get(name) ?? name;
}

/** Whether there was a strategy of this name. */
export function isRemovedStrategy(name: string): boolean {
  return removed.includes(name);
}
