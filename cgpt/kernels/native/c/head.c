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
// dw (V, C), so that the logits are neither kept nor computed twice. bufs: loss, dx, dw, x, w, targets (rows)
void cross_entropy_head(void **bufs, const void *dims, const void *) {
  const struct { int64_t rows, C, V; } *d = dims;
  int64_t C = d->C, V = d->V;
  float *loss = bufs[0], *dx = bufs[1], *dw = bufs[2], *x = bufs[3], *w = bufs[4];
  int64_t *at = allocate(d->rows, sizeof(int64_t));
  int32_t *targets = allocate(d->rows, sizeof(int32_t));
  float *xs = scratch(0, HEAD_ROWS * C), *dxs = scratch(1, HEAD_ROWS * C);
  float *logits = scratch(2, HEAD_ROWS * V), losses[HEAD_ROWS];
  if (out_of_memory) {
    free(at), free(targets);
    return;
  }
  int64_t n = rows_with_target(bufs[5], d->rows, at, targets);
  double total = 0.0;
  memset(dx, 0, d->rows * C * sizeof(float));
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
  *loss = n ? (float)(total / n) : 0.0f;
  free(at), free(targets);
}

typedef struct {
  const struct { int64_t B, T, C, V, K; } *dims;
  float *logprob, *work;
  int32_t *is_greedy;
  const float *x, *w;
  const int32_t *targets;
  int64_t work_per_thread;
} Scoring;

// Whether one of a position's K targets is not negative.
static int is_wanted(const int32_t *targets, int64_t K) {
  for (int64_t k = 0; k < K; k++)
    if (targets[k] >= 0) return 1;
  return 0;
}

// One sequence on its own, so that a score cannot depend on what else is in the batch.
static void token_logprobs_item(int64_t b, int thread, const void *arg) {
  const Scoring *s = arg;
  int64_t T = s->dims->T, C = s->dims->C, V = s->dims->V, K = s->dims->K;
  float *logprob = s->logprob + b * T * K, *xs = s->work + thread * s->work_per_thread, *logits = xs + QUERY_BLOCK * C;
  int32_t *is_greedy = s->is_greedy + b * T * K;
  const float *x = s->x + b * T * C;
  const int32_t *targets = s->targets + b * T * K;
  memset(logprob, 0, T * K * sizeof(float)), memset(is_greedy, 0, T * K * sizeof(int32_t));
  for (int64_t from = 0; from < T;) {
    int64_t at[QUERY_BLOCK], rows = 0;
    for (; from < T && rows < QUERY_BLOCK; from++) {
      if (!is_wanted(targets + from * K, K)) continue;
      memcpy(xs + rows * C, x + from * C, C * sizeof(float));
      at[rows++] = from;
    }
    if (!rows) continue;
    blas_sgemm(ROW_MAJOR, NO, YES, rows, V, C, 1.0f, xs, C, s->w, C, 0.0f, logits, V);
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
// bufs: logprob (B, T, K), is_greedy (B, T, K), x (B, T, C), w (V, C), targets
void token_logprobs(void **bufs, const void *dims, const void *) {
  Scoring s = {.dims = dims, .logprob = bufs[0], .is_greedy = bufs[1], .x = bufs[2], .w = bufs[3], .targets = bufs[4]};
  s.work_per_thread = QUERY_BLOCK * (s.dims->C + s.dims->V);
  s.work = scratch(0, pool.n_threads * s.work_per_thread);
  if (s.work) parallel(s.dims->B, token_logprobs_item, &s);
}

// logits (B, T, V) = x (B, T, C) w^T, each sequence on its own. bufs: logits, x, w (V, C)
void head_logits(void **bufs, const void *dims, const void *) {
  const struct { int64_t B, T, C, V; } *d = dims;
  gemm((Gemm){.m = d->T, .n = d->V, .k = d->C, .a = bufs[1], .b = bufs[2], .b_transposed = 1, .c = bufs[0],
              .n_groups = d->B});
}
