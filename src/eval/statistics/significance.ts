/** Tests of paired scores, and what corrects them where there are several. */
import { Random } from "../../base/random.ts";
import { sum } from "../../base/sum.ts";
import { contributions, type Stratum } from "./strata.ts";

interface McNemar {
  /** Exact two-sided p: twice the smaller binomial tail of the discordant pairs. */
  exact: number;
  /** With half the probability of the observed count (Lancaster's mid-p): less conservative. */
  midP: number;
}

/**
 * McNemar's test for binary scores of the same items: only the items that the arms judge differently carry information.
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

/** Up to this many units that differ, all sign patterns are counted instead of drawn. */
const enumerable = 13;

/**
 * Paired sign-flip permutation test: were the arms alike, each unit's difference could as well have the other sign.
 * @returns two-sided p of the macro mean being 0
 */
export function signFlipTest(
  strata: readonly Stratum[],
  { permutations, seed }: { permutations: number; seed: number },
): number {
  const parts = contributions(strata).filter((part) => part !== 0);
  if (parts.length === 0) return 1;
  // Sums in another order differ by rounding: what is equal must count as extreme.
  const observed = Math.abs(sum(parts)) - 1e-12;
  if (parts.length <= enumerable) return countAll(parts, observed);
  const random = Random.forPart(seed, `permutation/${strata.map(({ name }) => name).join("/")}`);
  let extreme = 1;
  for (let i = 0; i < permutations; i++) {
    let total = 0;
    let bits = 0;
    for (let j = 0; j < parts.length; j++) {
      if (j % 32 === 0) bits = random.bits();
      total += (bits & 1) === 1 ? (parts[j] as number) : -(parts[j] as number);
      bits >>>= 1;
    }
    if (Math.abs(total) >= observed) extreme++;
  }
  return extreme / (permutations + 1);
}

function countAll(parts: readonly number[], observed: number): number {
  let extreme = 0;
  const patterns = 2 ** parts.length;
  for (let pattern = 0; pattern < patterns; pattern++) {
    const total = parts.reduce((before, part, j) => before + ((pattern >> j) & 1 ? part : -part), 0);
    if (Math.abs(total) >= observed) extreme++;
  }
  return extreme / patterns;
}

/** Holm's step-down correction: adjusted p-values that hold for all tests together, in the order given. */
export function holm(values: readonly number[]): number[] {
  const order = values.map((_, index) => index).sort((left, right) => (values[left] ?? 0) - (values[right] ?? 0));
  const adjusted = new Array<number>(values.length);
  let largest = 0;
  for (const [rank, index] of order.entries()) {
    largest = Math.max(largest, Math.min(1, (values.length - rank) * (values[index] ?? 0)));
    adjusted[index] = largest;
  }
  return adjusted;
}
