// One translation unit: every kernel is compiled by one call of the compiler.
#include "common.h"

#include "attention.c"
#include "bfloat16.c"
#include "decode.c"
#include "head.c"
#include "layers.c"
#include "optimizer.c"
#include "packed.c"
#include "rounded.c"

typedef struct {
  void (*kernel)(const void *call);
  struct { const void *bufs, *dims, *consts; } call;
} KernelCall;

// A whole step: n kernels one after the other, with nothing in between, up to one that gets no memory.
void run_calls(const KernelCall *calls, int64_t n) {
  for (int64_t i = 0; i < n && !out_of_memory; i++) calls[i].kernel(&calls[i].call);
}
