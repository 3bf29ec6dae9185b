/**
 * Bounds of the mean of bounded values that hold for small samples and rare large values (Gaffke 2005; Learned-Miller and
 * Thomas 2019, arXiv 1905.06208). The lower bound is the alpha quantile of
 *
 *     (sum of w_i G_i v_i + w_0 G_0 floor) / (sum of w_i G_i + w_0 G_0),   G_i independent Exp(1):
 *
 * Dirichlet weights over the sample and one value more that was not seen and is the worst there is. Of n equal values it is
 * Clopper and Pearson's bound, of many values that vary it tends to the normal one. Nothing is drawn: a linear combination
 * of exponentials has a known characteristic function, which is integrated numerically.
 */

/** `count` independent draws of one value; counts may be fractions. */
export interface WeightedValue {
  value: number;
  /** Of one draw; only ratios of weights matter. */
  weight: number;
  count: number;
}

export interface BoundedSample {
  values: readonly WeightedValue[];
  /** Weight of the value that was not seen. */
  unseenWeight: number;
  /** Smallest value that there can be; the largest is its negative. */
  floor: number;
}

/** P(weighted mean <= at): the lower bound of one-sided confidence 1 - alpha lies above `at` where it is alpha at most. */
export function probabilityBelow({ values, unseenWeight, floor }: BoundedSample, at: number): number {
  if (at <= floor) return 0;
  if (values.every(({ value }) => value <= at)) return 1;
  return tailBelow([...grouped(values), { value: floor, weight: unseenWeight, count: 1 }], at);
}

const TOLERANCE = 1e-10;
const MAX_STEPS = 60;

/** Lower bound of the mean, of one-sided `confidence`. */
export function lowerBoundOfMean({ values, unseenWeight, floor }: BoundedSample, confidence: number): number {
  const alpha = 1 - confidence;
  const largest = values.reduce((most, { value }) => Math.max(most, value), floor);
  if (largest - floor < TOLERANCE) return floor;
  const all = [...grouped(values), { value: floor, weight: unseenWeight, count: 1 }];
  // Regula falsi on the logarithm of the tail (Illinois); at the ends the tail is known to be 0 and 1.
  let [low, high] = [floor, largest];
  const { mean, deviation } = momentsOf(all);
  let guess = mean - 2 * deviation;
  let lowValue: number | undefined;
  let highValue: number | undefined;
  let side = 0;
  for (let step = 0; step < MAX_STEPS && high - low > TOLERANCE; step++) {
    if (!(guess > low && guess < high)) guess = (low + high) / 2;
    const value = Math.log(tailBelow(all, guess) / alpha);
    if (Math.abs(value) < 1e-7) return guess;
    if (value < 0) {
      low = guess;
      lowValue = value;
      if (side === -1 && highValue !== undefined) highValue /= 2;
      side = -1;
    } else {
      high = guess;
      highValue = value;
      if (side === 1 && lowValue !== undefined) lowValue /= 2;
      side = 1;
    }
    guess =
      lowValue === undefined || highValue === undefined || !Number.isFinite(lowValue)
        ? lowValue === undefined
          ? guess - deviation
          : guess + deviation
        : (low * highValue - high * lowValue) / (highValue - lowValue);
  }
  return low;
}

/** Upper bound of the mean: the lower one of the negated values. */
export function upperBoundOfMean({ values, unseenWeight, floor }: BoundedSample, confidence: number): number {
  return -lowerBoundOfMean({ values: negated(values), unseenWeight, floor }, confidence);
}

export function negated(values: readonly WeightedValue[]): WeightedValue[] {
  return values.map(({ value, weight, count }) => ({ value: -value, weight, count }));
}

/** Equal values of equal weight as one. */
export function grouped(values: readonly WeightedValue[]): WeightedValue[] {
  const groups = new Map<string, WeightedValue>();
  for (const { value, weight, count } of values) {
    const key = `${value} ${weight}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { value, weight, count });
    else group.count += count;
  }
  return [...groups.values()].filter(({ count }) => count > 0);
}

function momentsOf(values: readonly WeightedValue[]): { mean: number; deviation: number } {
  let [total, first] = [0, 0];
  for (const { value, weight, count } of values) {
    total += weight * count;
    first += weight * count * value;
  }
  const mean = first / total;
  let squares = 0;
  for (const { value, weight, count } of values) squares += count * (weight * (value - mean)) ** 2;
  return { mean, deviation: Math.sqrt(squares) / total };
}

/** P(weighted mean < at), values with the one that was not seen. */
function tailBelow(values: readonly WeightedValue[], at: number): number {
  const slopes: number[] = [];
  const counts: number[] = [];
  let mean = 0;
  for (const { value, weight, count } of values) {
    const slope = weight * (value - at);
    if (slope === 0) continue;
    slopes.push(slope);
    counts.push(count);
    mean += count * slope;
  }
  // The smaller one of the two tails is computed: the other would be what cancellation leaves of large numbers.
  const flipped = slopes.map((slope) => -slope);
  return mean < 0 ? 1 - chanceOfNegative(flipped, counts) : chanceOfNegative(slopes, counts);
}

/**
 * P(Q < 0) for Q = sum of a_j Gamma(c_j) of mean 0 or more. With K(s) = -sum of c_j log(1 - a_j s) it is -1/(2 pi i) times
 * the integral of exp(K(s))/s along a line left of 0. All singularities are real, so the line may bend: it crosses the axis
 * near the saddle point and is a hyperbola along which the integrand neither oscillates nor cancels (Weideman and
 * Trefethen, 2007). Many small terms act as exp(s times their sum): the hyperbola opens to the side on which that falls.
 */
function chanceOfNegative(slopes: readonly number[], counts: readonly number[]): number {
  let [smallest, largest, variance] = [0, 0, 0];
  for (const [j, slope] of slopes.entries()) {
    smallest = Math.min(smallest, slope);
    largest = Math.max(largest, Math.abs(slope));
    variance += (counts[j] as number) * slope ** 2;
  }
  if (smallest === 0) return 0;
  const drift = slopes.reduce(
    (total, slope, j) => (Math.abs(slope) < largest / 10 ? total + (counts[j] as number) * slope : total),
    0,
  );
  const sine = drift < 0 ? -SINE : SINE;
  // The crossing keeps its distance from the pole of 1/s and from the nearest singularity of K.
  const saddle = saddlePoint(slopes, counts, smallest);
  const crossing = Math.max(Math.min(saddle, -0.3 / Math.sqrt(variance)), 0.7 / smallest);
  let exponent = 0;
  const ratios = slopes.map((slope, j) => {
    const factor = 1 - slope * crossing;
    exponent -= (counts[j] as number) * Math.log(factor);
    return slope / factor;
  });
  let integral = 0;
  for (let k = 0; k < MAX_POINTS; k++) {
    const v = k * STEP;
    const [across, along] = [-crossing * (Math.cosh(v) - 1) * sine, -crossing * Math.sinh(v) * COSINE];
    const [dReal, dImaginary] = [crossing * Math.sinh(v) * sine, -crossing * Math.cosh(v) * COSINE];
    const transform = relativeTransform(ratios, counts, across, along);
    // exp(K(s)) / s * ds/dv, over exp(K(crossing))
    const [real, imaginary] = [crossing - across, along];
    const size = real * real + imaginary * imaginary;
    const [overReal, overImaginary] = [
      (dReal * real + dImaginary * imaginary) / size,
      (dImaginary * real - dReal * imaginary) / size,
    ];
    const density = transform.real * overImaginary + transform.imaginary * overReal;
    integral += k === 0 ? density / 2 : density;
    if (Math.hypot(transform.real, transform.imaginary) < 1e-10) break;
  }
  return Math.min(1, Math.max(0, (-Math.exp(exponent) * integral * STEP) / Math.PI));
}

const STEP = 0.125;
const MAX_POINTS = 300;
/** Of the angle by which the line's ends lean. */
const SINE = 0.5;
const COSINE = Math.sqrt(0.75);

/** Where the derivative of K is 0, among s < 0; 0 where it is not below 0. A few digits are enough. */
function saddlePoint(slopes: readonly number[], counts: readonly number[], smallest: number): number {
  const derivative = (s: number) => {
    let total = 0;
    for (let j = 0; j < slopes.length; j++) {
      const slope = slopes[j] as number;
      total += ((counts[j] as number) * slope) / (1 - slope * s);
    }
    return total;
  };
  if (derivative(0) <= 0) return 0;
  let [low, high] = [1 / smallest, 0];
  for (let i = 0; i < 12; i++) {
    const middle = (low + high) / 2;
    if (derivative(middle) > 0) high = middle;
    else low = middle;
  }
  return (low + high) / 2;
}

/** Product of (1 + r_j (across - i along))^(-c_j). */
function relativeTransform(
  ratios: readonly number[],
  counts: readonly number[],
  across: number,
  along: number,
): { real: number; imaginary: number } {
  let [real, imaginary] = [1, 0];
  let [logSize, angle] = [0, 0];
  for (let j = 0; j < ratios.length; j++) {
    const ratio = ratios[j] as number;
    const count = counts[j] as number;
    const [a, b] = [1 + ratio * across, ratio * along];
    if (count === 1) {
      // 1 / (a - i b) = (a + i b) / (a^2 + b^2)
      const size = 1 / (a * a + b * b);
      const next = (real * a - imaginary * b) * size;
      imaginary = (imaginary * a + real * b) * size;
      real = next;
    } else {
      logSize -= (count / 2) * Math.log(a * a + b * b);
      angle += count * Math.atan2(b, a);
    }
  }
  const size = Math.exp(logSize);
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  return { real: size * (real * cosine - imaginary * sine), imaginary: size * (real * sine + imaginary * cosine) };
}
