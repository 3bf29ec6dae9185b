/** What a native library wrote to the stderr of a child process, and which line of it says why the child failed. */
import { stripVTControlCharacters } from "node:util";

/** Characters of native stderr that are kept. */
export const keptWords = 1 << 16;

/** The last error that ONNX Runtime logged, which says more than what it throws. */
export function loggedError(words: string): string | undefined {
  const line = lines(words).findLast((line) => /\[[EF]:onnxruntime/.test(line));
  return line === undefined ? undefined : plainWords(line);
}

/** The line that says most: a logged error, what was thrown, or else the last one. */
export function lastWords(words: string): string | undefined {
  const thrown = /^(what\(\):|FATAL ERROR:|\w*Error:)/;
  const line = loggedError(words) ?? lines(words).findLast((line) => thrown.test(line)) ?? lines(words).at(-1);
  return line === undefined ? undefined : plainWords(line).slice(0, longestWords);
}

/** A C++ exception names whole template instances. */
const longestWords = 300;

/** A message without colours, times, source positions and the folders of libraries. */
export function plainWords(message: string): string {
  return stripVTControlCharacters(message)
    .replace(/^.*\[ONNXRuntimeError\] : \d+ : \w+ : /, "")
    .replace(/^.*\[[EF]:onnxruntime[^\]]*\] /, "")
    .replace(/^\/\S+:\d+ .* was (?:false|true)\. /, "")
    .replace(/^.*with error: (?:\/\S+\/)?/, "")
    .replace(/^.*((?:CUDA|CUBLAS|CUDNN) failure \d+: [^;]+).*$/, "$1")
    .trim();
}

function lines(words: string): string[] {
  return stripVTControlCharacters(words)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
