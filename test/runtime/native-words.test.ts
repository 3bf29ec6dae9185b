import { expect, it } from "vitest";
import { lastWords } from "../../src/runtime/process/native-words.ts";

// As onnxruntime-node 1.30 left them on an H200.
it("finds the failure of CUDA in what an aborted process leaves", () => {
  const words = `terminate called after throwing an instance of 'onnxruntime::OnnxRuntimeException'
  what():  /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW> CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=vm ; file=x.cc ; line=894 ; expr=cudaGetLastError();


`;
  expect(lastWords(words)).toBe("CUDA failure 700: an illegal memory access was encountered");
});

it("takes the last line of anything else, and nothing of nothing", () => {
  expect(lastWords("one\n\u001b[31mtwo\u001b[0m\n\n")).toBe("two");
  expect(lastWords("FATAL ERROR: Reached heap limit\n1: 0xb8d0a0 node::OOMErrorHandler\n")).toBe(
    "FATAL ERROR: Reached heap limit",
  );
  expect(lastWords(" \n")).toBeUndefined();
});
