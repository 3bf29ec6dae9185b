/** Paired sign-flip permutation test: were the arms alike, each unit's difference could as well have the other sign. */
import { Random } from "../../base/random.ts";
import { sum } from "../../base/sum.ts";
import { contributions, type Stratum } from "./strata.ts";

/** Up to this many units that differ, all sign patterns are counted instead of drawn. */
const enumerable = 13;

/** Two-sided p of the macro mean being 0. */
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
