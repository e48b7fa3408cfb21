#include "common.h"

// ---- the tied head: logits = x wte^T, and what is wanted of them, a chunk of rows at a time ----

typedef struct {
  float *logits, *loss;
  const int32_t *target;
  int64_t vocab;
  float weight;
} Rows;

// Turn a row of logits into its loss and into the gradient of weight * loss.
static void cross_entropy_item(int64_t i, int thread, void *arg) {
  const Rows *s = arg;
  (void)thread;
  float *row = s->logits + i * s->vocab, top = row[0], sum = 0.0f, of_target = row[s->target[i]];
  for (int64_t j = 1; j < s->vocab; j++) top = row[j] > top ? row[j] : top;
  for (int64_t j = 0; j < s->vocab; j++) sum += row[j] = fast_exp(row[j] - top);
  s->loss[i] = logf(sum) + top - of_target;
  for (int64_t j = 0; j < s->vocab; j++) row[j] *= s->weight / sum;
  row[s->target[i]] -= s->weight;
}

// Indices of the rows that have a target, and those targets.
static int64_t rows_with_target(const int32_t *targets, int64_t rows, int64_t *at, int32_t *kept) {
  int64_t n = 0;
  for (int64_t i = 0; i < rows; i++)
    if (targets[i] >= 0) at[n] = i, kept[n++] = targets[i];
  return n;
}

// Mean cross-entropy over the rows whose target is not negative, with its gradients, so that the logits are neither
// kept nor computed twice. dims: rows, d_model, vocab. bufs: loss (1), dx, dw, x, w (vocab, d_model), targets
void cross_entropy_head(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  int64_t width = d[1], vocab = d[2];
  float *loss = bufs[0], *dx = bufs[1], *dw = bufs[2], *x = bufs[3], *w = bufs[4];
  int64_t *at = allocate(d[0], sizeof(int64_t));
  int32_t *target = allocate(d[0], sizeof(int32_t));
  float *xs = scratch(0, HEAD_ROWS * width), *dxs = scratch(1, HEAD_ROWS * width);
  float *logits = scratch(2, HEAD_ROWS * vocab), losses[HEAD_ROWS];
  if (out_of_memory) {
    free(at), free(target);
    return;
  }
  int64_t n = rows_with_target(bufs[5], d[0], at, target);
  double total = 0.0;
  memset(dx, 0, d[0] * width * sizeof(float));
  if (!n) memset(dw, 0, vocab * width * sizeof(float));
  for (int64_t from = 0; from < n; from += HEAD_ROWS) {
    int64_t rows = min64(HEAD_ROWS, n - from);
    for (int64_t i = 0; i < rows; i++) memcpy(xs + i * width, x + at[from + i] * width, width * sizeof(float));
    gemm((Gemm){NO, YES, rows, vocab, width, xs, w, 0.0f, logits, width, width, vocab});
    Rows s = {logits, losses, target + from, vocab, 1.0f / n};
    parallel(rows, cross_entropy_item, &s);
    for (int64_t i = 0; i < rows; i++) total += losses[i];
    gemm((Gemm){NO, NO, rows, width, vocab, logits, w, 0.0f, dxs, vocab, width, width});
    gemm((Gemm){YES, NO, vocab, width, rows, logits, xs, from ? 1.0f : 0.0f, dw, vocab, width, width});
    for (int64_t i = 0; i < rows; i++) memcpy(dx + at[from + i] * width, dxs + i * width, width * sizeof(float));
  }
  *loss = n ? (float)(total / n) : 0.0f;
  free(at), free(target);
}

typedef struct { void **bufs; const int64_t *d; float *work; int64_t work_per_thread; } Scoring;

static int is_wanted(const int32_t *targets, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (targets[k] >= 0) return 1;
  return 0;
}

// One sequence on its own, so that a score cannot depend on what else is in the batch.
static void token_logprobs_item(int64_t b, int thread, void *arg) {
  const Scoring *s = arg;
  int64_t T = s->d[1], width = s->d[2], vocab = s->d[3], K = s->d[4];
  float *logprob = (float *)s->bufs[0] + b * T * K, *x = (float *)s->bufs[2] + b * T * width, *w = s->bufs[3];
  int32_t *is_greedy = (int32_t *)s->bufs[1] + b * T * K, *targets = (int32_t *)s->bufs[4] + b * T * K;
  float *xs = s->work + thread * s->work_per_thread, *logits = xs + QUERY_BLOCK * width;
  memset(logprob, 0, T * K * sizeof(float)), memset(is_greedy, 0, T * K * sizeof(int32_t));
  for (int64_t from = 0; from < T;) {
    int64_t at[QUERY_BLOCK], rows = 0;
    for (; from < T && rows < QUERY_BLOCK; from++) {
      if (!is_wanted(targets + from * K, K)) continue;
      memcpy(xs + rows * width, x + from * width, width * sizeof(float));
      at[rows++] = from;
    }
    if (!rows) continue;
    blas_sgemm(ROW_MAJOR, NO, YES, rows, vocab, width, 1.0f, xs, width, w, width, 0.0f, logits, vocab);
    for (int64_t i = 0; i < rows; i++) {
      float *row = logits + i * vocab, top = row[0];
      double sum = 0.0;
      for (int64_t j = 1; j < vocab; j++) top = row[j] > top ? row[j] : top;
      for (int64_t j = 0; j < vocab; j++) sum += fast_exp(row[j] - top);
      for (int64_t k = at[i] * K; k < (at[i] + 1) * K; k++) {
        if (targets[k] < 0) continue;
        logprob[k] = (float)(row[targets[k]] - top - log(sum));
        is_greedy[k] = row[targets[k]] == top;
      }
    }
  }
}

// dims: B, T, d_model, vocab, K. bufs: logprob (B, T, K), is_greedy (B, T, K), x, w, targets (negative: not wanted, gives 0)
void token_logprobs(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  int64_t per_thread = QUERY_BLOCK * (d[2] + d[3]);
  Scoring s = {bufs, d, scratch(0, pool.n_threads * per_thread), per_thread};
  if (!s.work) return;
  parallel(d[0], token_logprobs_item, &s);
}

// dims: rows, d_model, vocab, rows per independent group. bufs: logits, x, w (vocab, d_model)
void head_logits(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  gemm((Gemm){NO, YES, d[3], d[2], d[1], bufs[1], bufs[2], 0.0f, bufs[0], d[1], d[1], d[2], d[0] / d[3], d[3] * d[1],
              d[3] * d[2]});
}
