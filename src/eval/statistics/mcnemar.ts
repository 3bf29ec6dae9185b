/** McNemar's test for binary scores of the same items: only the items that the arms judge differently carry information. */

export interface McNemar {
  /** Exact two-sided p: twice the smaller binomial tail of the discordant pairs. */
  exact: number;
  /** With half the probability of the observed count (Lancaster's mid-p): less conservative. */
  midP: number;
}

/**
 * @param lost items that the baseline has right and the candidate wrong
 * @param gained the reverse
 */
export function mcnemar(lost: number, gained: number): McNemar {
  const pairs = lost + gained;
  const smaller = Math.min(lost, gained);
  let logTerm = -pairs * Math.LN2;
  let tail = Math.exp(logTerm);
  for (let k = 1; k <= smaller; k++) {
    logTerm += Math.log((pairs - k + 1) / k);
    tail += Math.exp(logTerm);
  }
  return { exact: Math.min(1, 2 * tail), midP: Math.min(1, 2 * tail - Math.exp(logTerm)) };
}
