/** How many items sequences begin with alike. */
export function commonPrefix(sequences: readonly ArrayLike<number>[]): number {
  const [first = [], ...others] = sequences;
  let length = 0;
  while (length < first.length && others.every((one) => one[length] === first[length])) length++;
  return length;
}
