/** How many layers stay Full: the targets of a search, as fractions of the layers or as counts. */
import { UsageError } from "../base/errors.ts";

/**
 * Reads a list of retentions, `1/2,1/4,1/8`; `all` is every number of Full layers that patterns can have.
 * @param fewest Full layers of the sparsest pattern that is allowed
 * @param most Full layers of the model itself
 * @param otherForm reads a part of a form of its own; undefined for other parts
 * @returns distinct numbers of Full layers, descending
 * @throws UsageError as `parseRetain` does
 */
export function parseTargets(
  text: string,
  layers: number,
  { fewest, most }: { fewest: number; most: number },
  otherForm: (part: string) => number | undefined = () => undefined,
): number[] {
  const targets =
    text === "all"
      ? Array.from({ length: most - fewest + 1 }, (_, index) => fewest + index)
      : text.split(",").map((part) => otherForm(part.trim()) ?? parseRetain(part.trim(), layers));
  return [...new Set(targets)].sort((left, right) => right - left);
}

/**
 * Reads a retention: `1/4` and `0.25` are fractions, rounded to the nearest whole layer but never to none (12 of 47
 * for 1/4, as in the paper); `12` is a count of Full layers. `1` is one layer, `1/1` and `1.0` are all of them.
 * @throws UsageError for 0, for more than all layers, and for anything else
 */
export function parseRetain(text: string, layers: number): number {
  const form = /^(?:(?<count>\d+)|(?<decimal>\d*\.\d+)|(?<over>\d+)\/(?<under>\d+))$/.exec(text)?.groups;
  if (form === undefined) {
    throw new UsageError(`--retain is "${text}": it must be a fraction like 1/4 or 0.25, or a count of Full layers`);
  }
  const { count, decimal, over, under } = form;
  const wanted =
    count === undefined
      ? layers * (decimal === undefined ? Number(over) / Number(under) : Number(decimal))
      : Number(count);
  if (wanted === 0) throw new UsageError(`--retain is "${text}": at least layer 0 has to stay Full`);
  // A denominator of zero leads to Infinity or NaN.
  if (!(wanted <= layers)) throw new UsageError(`--retain is "${text}", more than the model's ${layers} layers`);
  return Math.max(1, Math.round(wanted));
}
