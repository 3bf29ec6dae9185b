/** The two distributions that races, intervals and tests need. Accurate to about 1e-12, which bisection then keeps. */

/** P(Z <= z) of a standard normal Z. */
export function normalCdf(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  // erf(x) = 2/sqrt(pi) exp(-x^2) sum 2^k x^(2k+1) / (1 3 5 ... (2k+1)): all terms positive, no cancellation.
  if (x > 6) return z > 0 ? 1 : 0;
  let term = x;
  let total = x;
  for (let k = 1; term > total * 1e-17; k++) {
    term *= (2 * x * x) / (2 * k + 1);
    total += term;
  }
  const half = (total * Math.exp(-x * x)) / Math.sqrt(Math.PI);
  return z > 0 ? 0.5 + half : 0.5 - half;
}

/** The z with P(Z <= z) = p. */
export function normalQuantile(p: number): number {
  return bisect(normalCdf, p, 8);
}

/** P(T <= t) of Student's T with `degrees` degrees of freedom. */
export function studentCdf(t: number, degrees: number): number {
  const tail = regularizedBeta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2;
  return t > 0 ? 1 - tail : tail;
}

/** The t with P(T <= t) = p. */
export function studentQuantile(p: number, degrees: number): number {
  const cdf = (t: number) => studentCdf(t, degrees);
  let limit = 1e5;
  // With one degree of freedom the tails are long.
  while (cdf(-limit) > Math.min(p, 1 - p)) limit *= 2;
  return bisect(cdf, p, limit);
}

function bisect(cdf: (x: number) => number, p: number, limit: number): number {
  if (!(p > 0 && p < 1)) throw new RangeError(`no quantile of ${p}`);
  let low = -limit;
  let high = limit;
  for (let i = 0; i < 120 && high - low > 1e-13 * Math.max(1, Math.abs(low)); i++) {
    const middle = (low + high) / 2;
    if (cdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Regularized incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22, Lentz's method). */
function regularizedBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast on this side only.
  if (x > (a + 1) / (a + b + 2)) return 1 - regularizedBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
  const tiny = 1e-300;
  let c = 1;
  let d = 1 / nonZero(1 - ((a + b) * x) / (a + 1), tiny);
  let fraction = d;
  for (let m = 1; m < 500; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonZero(1 + even * d, tiny);
    c = nonZero(1 + even / c, tiny);
    fraction *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonZero(1 + odd * d, tiny);
    c = nonZero(1 + odd / c, tiny);
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) break;
  }
  return front * fraction;
}

/** Stirling's series above 10, where four terms give full precision; the recurrence below. */
function logGamma(x: number): number {
  let shift = 0;
  let z = x;
  while (z < 10) shift += Math.log(z++);
  const series = 1 / (12 * z) - 1 / (360 * z ** 3) + 1 / (1260 * z ** 5) - 1 / (1680 * z ** 7) + 1 / (1188 * z ** 9);
  return (z - 0.5) * Math.log(z) - z + Math.log(2 * Math.PI) / 2 + series - shift;
}

function nonZero(value: number, tiny: number): number {
  return Math.abs(value) < tiny ? tiny : value;
}
