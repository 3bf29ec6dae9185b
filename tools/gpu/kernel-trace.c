// Every kernel and copy of a process on a GPU, with their times on it: ONNX Runtime's own profile has the host's alone.
//
//   gcc -O1 -shared -fPIC -I$CUDA/include tools/gpu/kernel-trace.c -o kernel-trace.so -L$CUDA/lib64 -l:libcupti.so.13
//   TRACE_API=1 TRACE_OUT=trace.txt CUDA_INJECTION64_PATH=$PWD/kernel-trace.so node tools/gpu/indexcache_loss.js ...
//   python tools/gpu/kernel_trace.py trace.txt
//
// TRACE_API adds calls that allocate, free, copy or wait.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cuda.h>
#include <cupti.h>
static FILE *out;
static void CUPTIAPI get(uint8_t **buffer, size_t *size, size_t *most) { *size = 16 << 20; *buffer = aligned_alloc(8, *size); *most = 0; }
static void CUPTIAPI done(CUcontext c, uint32_t s, uint8_t *buffer, size_t size, size_t valid) {
  CUpti_Activity *r = NULL;
  while (valid > 0 && out && cuptiActivityGetNextRecord(buffer, valid, &r) == CUPTI_SUCCESS) {
    switch (r->kind) {
      case CUPTI_ACTIVITY_KIND_KERNEL: case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        CUpti_ActivityKernel10 *k = (void *)r;
        fprintf(out, "K\t%llu\t%llu\t%d,%d,%d\t%d\t%u\t%.300s\n", (unsigned long long)k->start, (unsigned long long)k->end, k->gridX, k->gridY, k->gridZ, k->blockX * k->blockY * k->blockZ, k->correlationId, k->name ? k->name : "?"); break; }
      case CUPTI_ACTIVITY_KIND_MEMCPY: { CUpti_ActivityMemcpy6 *m = (void *)r; fprintf(out, "C\t%llu\t%llu\t%llu\t%d\t%u\tcopy\n", (unsigned long long)m->start, (unsigned long long)m->end, (unsigned long long)m->bytes, m->copyKind, m->correlationId); break; }
      case CUPTI_ACTIVITY_KIND_MEMSET: { CUpti_ActivityMemset4 *m = (void *)r; fprintf(out, "S\t%llu\t%llu\t%llu\t0\t%u\tset\n", (unsigned long long)m->start, (unsigned long long)m->end, (unsigned long long)m->bytes, m->correlationId); break; }
      case CUPTI_ACTIVITY_KIND_RUNTIME: { CUpti_ActivityAPI *a = (void *)r; const char *n = NULL; cuptiGetCallbackName(CUPTI_CB_DOMAIN_RUNTIME_API, a->cbid, &n); if (n && (strstr(n, "Malloc") || strstr(n, "Free") || strstr(n, "Synchronize") || strstr(n, "Memcpy"))) fprintf(out, "A\t%llu\t%llu\t0\t0\t%u\t%s\n", (unsigned long long)a->start, (unsigned long long)a->end, a->correlationId, n); break; }
      default: break;
    }
  }
  free(buffer);
}
static void end(void) { cuptiActivityFlushAll(1); if (out) fclose(out); out = NULL; }
int InitializeInjection(void) {
  const char *path = getenv("TRACE_OUT");
  if (!path) return 1;
  out = fopen(path, "w");
  cuptiActivityRegisterCallbacks(get, done);
  CUptiResult a = cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL), b = cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY), c = cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET), d = getenv("TRACE_API") ? cuptiActivityEnable(CUPTI_ACTIVITY_KIND_RUNTIME) : 0;
  fprintf(out, "# %d %d %d %d\n", a, b, c, d);
  atexit(end);
  return 1;
}
