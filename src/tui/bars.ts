/** Bars of characters. They carry meaning by their length alone, so that they read the same in any colour. */

/** How much is done: `███░░░`. */
export function progressBar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "█".repeat(full) + "░".repeat(width - full);
}

/** How much is done, with the percentage; the bar takes what of the columns is not reserved for what follows it. */
export function percentBar(share: number, columns: number, reserved: number): string {
  const percent = String(Math.floor(100 * Math.min(1, share))).padStart(3);
  return `${progressBar(share, Math.max(8, Math.min(60, columns - reserved)))} ${percent}%`;
}

/**
 * A value from 0 up with its error: filled to the value (`▓` where the error reaches back), a line as far as the error goes.
 * @param most the value that fills the width
 */
export function errorBar(value: number, error: number, most: number, width: number): string {
  const cells = (amount: number): number =>
    most > 0 ? Math.round((Math.min(Math.max(0, amount), most) / most) * width) : 0;
  const [low, middle, high] = [cells(value - error), cells(value), cells(value + error)];
  return ("█".repeat(low) + "▓".repeat(middle - low) + "─".repeat(high - middle)).padEnd(width);
}

const eighths = " ▁▂▃▄▅▆▇█";

/**
 * Columns of equal width, the lines from the top down.
 * @param heights from 0 to 1
 */
export function columns(heights: readonly number[], lines: number, width: number): string[] {
  return Array.from({ length: lines }, (_, line) => {
    const floor = lines - 1 - line;
    return heights
      .map((height) => {
        const filled = Math.max(0, Math.min(8, Math.round((height * lines - floor) * 8)));
        // A column that is there shows, however low it is.
        const shown = floor === 0 ? Math.max(1, filled) : filled;
        return `${(eighths[shown] ?? " ").repeat(Math.max(1, width - 1))}${width > 1 ? " " : ""}`;
      })
      .join("")
      .trimEnd();
  });
}
