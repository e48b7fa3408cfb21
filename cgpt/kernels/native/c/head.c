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
    const struct { int64_t rows, C, V; } *dims;
  } *call = arg;
  int64_t all_rows = call->dims->rows, C = call->dims->C, V = call->dims->V;
  float *dx = call->bufs->dx, *dw = call->bufs->dw;
  const float *x = call->bufs->x, *w = call->bufs->w;
  int64_t *at = allocate(all_rows, sizeof(int64_t));
  int32_t *targets = allocate(all_rows, sizeof(int32_t));
  float *xs = scratch(0, HEAD_ROWS * C), *dxs = scratch(1, HEAD_ROWS * C);
  float *logits = scratch(2, HEAD_ROWS * V), losses[HEAD_ROWS];
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
    for (int64_t i = 0; i < rows; i++) memcpy(xs + i * C, x + at[from + i] * C, C * sizeof(float));
    gemm((Gemm){.m = rows, .n = V, .k = C, .a = xs, .b = w, .b_transposed = 1, .c = logits});
    Losses s = {.logits = logits, .losses = losses, .weight = 1.0f / n, .targets = targets + from, .V = V};
    parallel(rows, cross_entropy_item, &s);
    for (int64_t i = 0; i < rows; i++) total += losses[i];
    gemm((Gemm){.m = rows, .n = C, .k = V, .a = logits, .b = w, .c = dxs});
    gemm((Gemm){.m = V, .n = C, .k = rows, .a = logits, .a_transposed = 1, .b = xs, .c = dw,
                .beta = from ? 1.0f : 0.0f});
    for (int64_t i = 0; i < rows; i++) memcpy(dx + at[from + i] * C, dxs + i * C, C * sizeof(float));
  }
  *call->bufs->loss = n ? (float)(total / n) : 0.0f;
  free(at), free(targets);
}

typedef struct {
  const struct { float *logprob; int32_t *is_greedy; const float *x, *w; const int32_t *targets; } *bufs;
  const struct { int64_t B, T, C, V, K; } *dims;
} TokenLogprobs;

// Whether one of a position's K targets is not negative.
static int is_wanted(const int32_t *targets, int64_t K) {
  for (int64_t k = 0; k < K; k++)
    if (targets[k] >= 0) return 1;
  return 0;
}

// One sequence on its own, so that a score cannot depend on what else is in the batch.
static void token_logprobs_item(int64_t b, int thread, const void *arg) {
  const TokenLogprobs *call = arg;
  int64_t T = call->dims->T, C = call->dims->C, V = call->dims->V, K = call->dims->K;
  float *logprob = call->bufs->logprob + b * T * K;
  int32_t *is_greedy = call->bufs->is_greedy + b * T * K;
  const float *x = call->bufs->x + b * T * C;
  const int32_t *targets = call->bufs->targets + b * T * K;
  float *xs = thread_scratch(thread, QUERY_BLOCK * (C + V)), *logits = xs + QUERY_BLOCK * C;
  memset(logprob, 0, T * K * sizeof(float)), memset(is_greedy, 0, T * K * sizeof(int32_t));
  for (int64_t from = 0; from < T;) {
    int64_t at[QUERY_BLOCK], rows = 0;
    for (; from < T && rows < QUERY_BLOCK; from++) {
      if (!is_wanted(targets + from * K, K)) continue;
      memcpy(xs + rows * C, x + from * C, C * sizeof(float));
      at[rows++] = from;
    }
    if (!rows) continue;
    blas_sgemm(ROW_MAJOR, NO, YES, rows, V, C, 1.0f, xs, C, call->bufs->w, C, 0.0f, logits, V);
    for (int64_t i = 0; i < rows; i++) {
      float *row = logits + i * V, top = row[0];
      double sum = 0.0;
      for (int64_t j = 1; j < V; j++) top = row[j] > top ? row[j] : top;
      for (int64_t j = 0; j < V; j++) sum += fast_exp(row[j] - top);
      for (int64_t k = at[i] * K; k < (at[i] + 1) * K; k++) {
        if (targets[k] < 0) continue;
        logprob[k] = (float)(row[targets[k]] - top - log(sum));
        is_greedy[k] = row[targets[k]] == top;
      }
    }
  }
}

// log p of targets (B, T, K) and whether each is the most likely token; both are 0 where the target is negative.
void token_logprobs(const void *arg) {
  const TokenLogprobs *call = arg;
  if (reserve(QUERY_BLOCK * (call->dims->C + call->dims->V))) parallel(call->dims->B, token_logprobs_item, call);
}

// logits (B, T, V) = x (B, T, C) w^T, w (V, C), each sequence on its own.
void head_logits(const void *arg) {
  const struct {
    const struct { float *logits; const float *x, *w; } *bufs;
    const struct { int64_t B, T, C, V; } *dims;
  } *call = arg;
  gemm((Gemm){.m = call->dims->T, .n = call->dims->V, .k = call->dims->C, .n_groups = call->dims->B, .a = call->bufs->x,
              .b = call->bufs->w, .b_transposed = 1, .c = call->bufs->logits});
}
