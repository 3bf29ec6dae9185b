/**
 * Token ids for runs whose text does not matter: they warm a device up, or are timed. They do not repeat for a while.
 * @param first place of the first one
 */
export function standInIds(vocabSize: number, count: number, first = 0): number[] {
  return Array.from({ length: count }, (_, at) => ((first + at) * 7919 + 13) % vocabSize);
}
