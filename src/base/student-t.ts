/** Student's t distribution: how large a mean difference may be by chance, for the few sequences that a race has seen. */

/** P(T <= t) with `degrees` of freedom, through the regularised incomplete beta function. */
export function studentCdf(t: number, degrees: number): number {
  const tail = incompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2;
  return t > 0 ? 1 - tail : tail;
}

/** The t that is exceeded with probability `alpha`; Infinity without a degree of freedom. 0 < alpha < 1. */
export function studentQuantile(alpha: number, degrees: number): number {
  if (degrees < 1) return Number.POSITIVE_INFINITY;
  let low = -1;
  let high = 1;
  while (1 - studentCdf(high, degrees) > alpha) high *= 2;
  while (1 - studentCdf(low, degrees) < alpha) low *= 2;
  for (let step = 0; step < 100; step++) {
    const middle = (low + high) / 2;
    if (1 - studentCdf(middle, degrees) > alpha) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** I_x(a, b) by its continued fraction (Lentz), which converges fast below the mean of the beta distribution. */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
  const tiny = 1e-300;
  let numerator = 1;
  let denominator = 0;
  let fraction = 1;
  for (let i = 0; i < 500; i++) {
    const m = i >> 1;
    let term = 1;
    if (i > 0 && i % 2 === 0) term = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    if (i % 2 === 1) term = -((a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    denominator = 1 / nonZero(1 + term * denominator, tiny);
    numerator = nonZero(1 + term / numerator, tiny);
    const change = numerator * denominator;
    fraction *= change;
    if (i > 0 && Math.abs(change - 1) < 1e-14) break;
  }
  return front * (fraction - 1);
}

function nonZero(value: number, tiny: number): number {
  return Math.abs(value) < tiny ? tiny : value;
}

/** ln Γ(x) for x > 0 (Lanczos, g = 7). */
function logGamma(x: number): number {
  const weights = [
    0.9999999999998099, 676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406,
    12.507343278686905, -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
  ];
  const [first = 0, ...others] = weights;
  const series = others.reduce((sum, weight, index) => sum + weight / (x + index), first);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(series);
}
