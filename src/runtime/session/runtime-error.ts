/** ONNX Runtime's failures in words: what a user can do something about, apart from the rest. */
import { RuntimeFailure } from "../../base/errors.ts";

/** The runtime's messages run over many lines of source positions; the first one says what is wrong. */
export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]?.trim() ?? "";
}

/** What it means that a graph cannot be loaded. */
export function explainLoad(error: unknown, name: string): RuntimeFailure {
  return (
    explainDevice(error, name) ??
    new RuntimeFailure(`ONNX Runtime cannot load "${name}": ${firstLine(error)}`, { cause: error })
  );
}

/** What a failed run of a graph means. */
export function explainRun(error: unknown, name: string): RuntimeFailure {
  return (
    explainDevice(error, name) ??
    new RuntimeFailure(`ONNX Runtime failed in "${name}": ${firstLine(error)}`, { cause: error })
  );
}

/** What a device has to do with it, if it has. */
function explainDevice(error: unknown, name: string): RuntimeFailure | undefined {
  const text = error instanceof Error ? error.message : String(error);
  // A branch's cuBLAS handle and cuDNN's take memory of their own when it first runs.
  if (/Failed to allocate memory|out of memory|bad_alloc|CUDA failure 2:|(CUBLAS|CUDNN) failure.*alloc/i.test(text)) {
    const wanted = /buffer of size (\d+)/.exec(text)?.[1];
    const size = wanted === undefined ? "" : ` (a tensor of ${(Number(wanted) / 2 ** 20).toFixed(0)} MiB was next)`;
    return new RuntimeFailure(`The device ran out of memory in "${name}"${size}`, {
      hint: "use shorter sequences (--sequence-length), --dtype float16, or continue with --resume --device cpu",
      cause: error,
    });
  }
  const failure = /(CUDA|CUBLAS|CUDNN) failure (\d+): ([^;]+)/.exec(text);
  if (failure !== null || /device (was |is )?lost/i.test(text)) {
    const words = failure === null ? firstLine(error) : `${failure[1]} failure ${failure[2]}, ${failure[3]?.trim()}`;
    return new RuntimeFailure(`The device failed in "${name}": ${words}`, {
      hint: "see what indexcache doctor says; a search continues with --resume, on --device cpu too",
      cause: error,
    });
  }
  return undefined;
}
