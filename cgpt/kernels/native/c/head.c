#include "common.h"

// ---- the head: logits = x w^T, and what is wanted of them, a chunk of rows at a time ----

enum { HEAD_ROWS = 256 };

typedef struct {
  float *logits, *losses, weight;  // logits (rows, V), losses (rows)
  const int32_t *targets;
  int64_t V;
} Losses;

// Turn a row of logits into its loss and into the gradient of weight * loss.
static void cross_entropy_item(int64_t i, int, const void *arg) {
  const Losses *s = arg;
  int64_t V = s->V;
  float *row = s->logits + i * V, top = row[0], sum = 0.0f, of_target = row[s->targets[i]];
  for (int64_t j = 1; j < V; j++) top = row[j] > top ? row[j] : top;
  for (int64_t j = 0; j < V; j++) sum += row[j] = fast_exp(row[j] - top);
  s->losses[i] = logf(sum) + top - of_target;
  for (int64_t j = 0; j < V; j++) row[j] *= s->weight / sum;
  row[s->targets[i]] -= s->weight;
}

// Write the indices of the rows that have a target, and those targets; returns how many there are.
static int64_t rows_with_target(const int32_t *targets, int64_t rows, int64_t *at, int32_t *kept) {
  int64_t n = 0;
  for (int64_t i = 0; i < rows; i++)
    if (targets[i] >= 0) at[n] = i, kept[n++] = targets[i];
  return n;
}

// loss (1), the mean cross-entropy over the rows whose target is not negative, with its gradients dx (rows, C) and
// dw (V, C), so that the logits are neither kept nor computed twice.
void cross_entropy_head(const void *arg) {
  const struct {
    const struct { float *loss, *dx, *dw; const float *x, *w; const int32_t *targets; } *bufs;
    const struct { int64_t rows, C, V, bfloat16; } *dims;
  } *call = arg;
  int64_t all_rows = call->dims->rows, C = call->dims->C, V = call->dims->V, bfloat16 = call->dims->bfloat16;
  float *dx = call->bufs->dx, *dw = call->bufs->dw;
  const float *x = call->bufs->x, *w = call->bufs->w;
  int64_t *at = allocate(all_rows, sizeof(int64_t));
  int32_t *targets = allocate(all_rows, sizeof(int32_t));
  float *xs = scratch(0, HEAD_ROWS * C), *dxs = scratch(1, HEAD_ROWS * C);
  float *logits = scratch(2, HEAD_ROWS * V), losses[HEAD_ROWS];
  Gemm of_logits = {.n = V, .k = C, .a = xs, .b = w, .b_transposed = 1, .c = logits, .bfloat16 = bfloat16};
  Gemm of_dx = {.n = C, .k = V, .a = logits, .b = w, .c = dxs, .bfloat16 = bfloat16};
  Gemm of_dw = {.m = V, .n = C, .a = logits, .a_transposed = 1, .b = xs, .c = dw, .bfloat16 = bfloat16};
  if (bfloat16) pack_shared((Gemm *[]){&of_logits, &of_dx}, 2);
  if (out_of_memory) {
    free(at), free(targets);
    return;
  }
  int64_t n = rows_with_target(call->bufs->targets, all_rows, at, targets);
  double total = 0.0;
  memset(dx, 0, all_rows * C * sizeof(float));
  if (!n) memset(dw, 0, V * C * sizeof(float));
  for (int64_t from = 0; from < n; from += HEAD_ROWS) {
    int64_t rows = min64(HEAD_ROWS, n - from);
    of_logits.m = of_dx.m = of_dw.k = rows, of_dw.beta = from ? 1.0f : 0.0f;
    for (int64_t i = 0; i < rows; i++) memcpy(xs + i * C, x + at[from + i] * C, C * sizeof(float));
    gemm(of_logits);
    Losses s = {.logits = logits, .losses = losses, .weight = 1.0f / n, .targets = targets + from, .V = V};
    parallel(rows, cross_entropy_item, &s);
    for (int64_t i = 0; i < rows; i++) total += losses[i];
    gemm(of_dx);
    gemm(of_dw);
    for (int64_t i = 0; i < rows; i++) memcpy(dx + at[from + i] * C, dxs + i * C, C * sizeof(float));
  }
  *call->bufs->loss = n ? (float)(total / n) : 0.0f;
  free(at), free(targets);
}

typedef struct {
  const struct { float *logprob; int32_t *is_greedy; const float *x, *w; const int32_t *targets; } *bufs;
  const struct { int64_t B, T, C, V, K, bfloat16; } *dims;
} TokenLogprobs;

// Whether one of a position's K targets is not negative.
static int is_wanted(const int32_t *targets, int64_t K) {
  for (int64_t k = 0; k < K; k++)
    if (targets[k] >= 0) return 1;
  return 0;
}

// Copy rows of x that have a target, of a sequence and from `*from` on, as many as `at` has room for, and say where they
// were; returns how many.
static int64_t copy_wanted(const TokenLogprobs *call, int64_t b, int64_t *from, float *xs, int64_t *at) {
  int64_t T = call->dims->T, C = call->dims->C, K = call->dims->K, rows = 0;
  for (; *from < T && rows < QUERY_BLOCK; ++*from) {
    int64_t row = b * T + *from;
    if (!is_wanted(call->bufs->targets + row * K, K)) continue;
    memcpy(xs + rows * C, call->bufs->x + row * C, C * sizeof(float));
    at[rows++] = row;
  }
  return rows;
}

// The outputs of a row (V) of logits.
static void row_logprobs(const TokenLogprobs *call, int64_t at, const float *row) {
  int64_t V = call->dims->V, K = call->dims->K;
  const int32_t *targets = call->bufs->targets;
  float top = row[0];
  double sum = 0.0;
  for (int64_t j = 1; j < V; j++) top = row[j] > top ? row[j] : top;
  for (int64_t j = 0; j < V; j++) sum += fast_exp(row[j] - top);
  for (int64_t k = at * K; k < (at + 1) * K; k++) {
    if (targets[k] < 0) continue;
    call->bufs->logprob[k] = (float)(row[targets[k]] - top - log(sum));
    call->bufs->is_greedy[k] = row[targets[k]] == top;
  }
}

// One sequence on its own, so that a score cannot depend on what else is in the batch.
static void token_logprobs_item(int64_t b, int thread, const void *arg) {
  const TokenLogprobs *call = arg;
  int64_t C = call->dims->C, V = call->dims->V, at[QUERY_BLOCK];
  float *xs = thread_scratch(thread, QUERY_BLOCK * (C + V)), *logits = xs + QUERY_BLOCK * C;
  for (int64_t from = 0, rows; (rows = copy_wanted(call, b, &from, xs, at));) {
    blas_sgemm(ROW_MAJOR, NO, YES, rows, V, C, 1.0f, xs, C, call->bufs->w, C, 0.0f, logits, V);
    for (int64_t i = 0; i < rows; i++) row_logprobs(call, at[i], logits + i * V);
  }
}

typedef struct { const TokenLogprobs *call; const float *logits; int64_t at[QUERY_BLOCK]; } Rows;

static void row_logprobs_item(int64_t i, int, const void *arg) {
  const Rows *s = arg;
  row_logprobs(s->call, s->at[i], s->logits + i * s->call->dims->V);
}

// The sequences one after the other, as all threads share one packed w.
static void token_logprobs_bfloat16(const TokenLogprobs *call) {
  int64_t C = call->dims->C, V = call->dims->V;
  float *xs = scratch(1, QUERY_BLOCK * C), *logits = scratch(2, QUERY_BLOCK * V);
  Gemm product = {.n = V, .k = C, .a = xs, .b = call->bufs->w, .b_transposed = 1, .c = logits, .bfloat16 = 1};
  Rows s = {.call = call, .logits = logits};
  if (!xs || !logits || !pack_shared((Gemm *[]){&product}, 1)) return;
  for (int64_t b = 0; b < call->dims->B; b++)
    for (int64_t from = 0; (product.m = copy_wanted(call, b, &from, xs, s.at));) {
      gemm(product);
      if (out_of_memory) return;
      parallel(product.m, row_logprobs_item, &s);
    }
}

// log p of targets (B, T, K) and whether each is the most likely token; both are 0 where the target is negative.
void token_logprobs(const void *arg) {
  const TokenLogprobs *call = arg;
  int64_t n = call->dims->B * call->dims->T * call->dims->K;
  memset(call->bufs->logprob, 0, n * sizeof(float)), memset(call->bufs->is_greedy, 0, n * sizeof(int32_t));
  if (call->dims->bfloat16) return token_logprobs_bfloat16(call);
  if (reserve(QUERY_BLOCK * (call->dims->C + call->dims->V))) parallel(call->dims->B, token_logprobs_item, call);
}

// logits (B, T, V) = x (B, T, C) w^T, w (V, C), each sequence on its own.
void head_logits(const void *arg) {
  const struct {
    const struct { float *logits; const float *x, *w; } *bufs;
    const struct { int64_t B, T, C, V, bfloat16; } *dims;
  } *call = arg;
  gemm((Gemm){.m = call->dims->T, .n = call->dims->V, .k = call->dims->C, .n_groups = call->dims->B, .a = call->bufs->x,
              .b = call->bufs->w, .b_transposed = 1, .c = call->bufs->logits, .bfloat16 = call->dims->bfloat16});
}
