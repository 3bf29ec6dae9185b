/** What a benchmark is of: work that was answered from memory, or never asked for, takes no time and means nothing. */

/**
 * @param what names the pass in the message
 * @param counted executions by kind, as the program counted them
 * @param expected those that the pass should take
 * @throws Error where any kind differs
 */
export function requireExecutions(what, counted, expected) {
  const wrong = Object.keys(expected).filter((kind) => counted[kind] !== expected[kind]);
  if (wrong.length === 0) return;
  const details = wrong.map((kind) => `${kind} ${counted[kind]} instead of ${expected[kind]}`);
  throw new Error(`${what} did not do the work that it is timed for: ${details.join(", ")}`);
}

/** Full layers of a pattern. */
export function countFull(pattern) {
  return [...pattern].filter((letter) => letter === "F").length;
}
