import { expect, it } from "vitest";
import { explainLoad, explainRun } from "../../src/runtime/session/runtime-error.ts";

// Messages as onnxruntime-node 1.30 gave them on an H200 and an H100.
it("tells a device that is out of memory", () => {
  const text =
    "Non-zero status code returned while running Relu node. Name:'Relu_73/node' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 7516192768\n";
  const failure = explainRun(new Error(text), "demo");
  expect(failure.message).toBe('The device ran out of memory in "demo" (a tensor of 7168 MiB was next)');
  expect(failure.hint).toContain("--resume --device cpu");
});

it("tells a device whose memory ran out before a graph was loaded", () => {
  const text =
    "Exception during initialization: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 CUDA failure 2: out of memory ; GPU=0 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=47";
  expect(explainLoad(new Error(text), "demo").message).toBe('The device ran out of memory in "demo"');
  expect(explainLoad(new Error("bad graph\nsource position"), "demo").message).toBe(
    'ONNX Runtime cannot load "demo": bad graph',
  );
});

it("tells a device without memory for what a branch's handles take", () => {
  const text =
    "Non-zero status code returned while running If node. Name:'If_4046/node' Status Message: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 CUBLAS failure 3: the resource allocation failed ; GPU=0 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_stream_handle.cc ; line=79 ; expr=cublasCreate(&cublas_handle_);";
  expect(explainRun(new Error(text), "demo").message).toBe('The device ran out of memory in "demo"');
  const other = "Status Message: CUBLAS failure 13: the function failed to launch on the GPU ; GPU=0 ; hostname=vm";
  expect(explainRun(new Error(other), "demo").message).toBe(
    'The device failed in "demo": CUBLAS failure 13, the function failed to launch on the GPU',
  );
});

it("tells a device that failed", () => {
  const text =
    "Non-zero status code returned while running MultiHeadAttention node. Status Message: CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=vm ; file=attention_softmax.cu ; line=894 ; expr=cudaGetLastError(); ";
  expect(explainRun(new Error(text), "demo").message).toBe(
    'The device failed in "demo": CUDA failure 700, an illegal memory access was encountered',
  );
});

it("keeps the first line of anything else", () => {
  expect(explainRun(new Error("no kernel\nsource position"), "demo").message).toBe(
    'ONNX Runtime failed in "demo": no kernel',
  );
});
