#include "common.h"

// ---- causal attention over packed q, k, v (B, T, 3, H, D): only blocks on and below the diagonal are computed,
// the T x T matrix is never kept, and the backward pass recomputes it from the log-sum-exp of each row ----

typedef struct {
  float *out, *lse;            // forward: (B, T, H, D), (B, H, T)
  float *dqkv;                 // backward
  const float *qkv, *dout, *saved_out;
  int64_t T, H, D;
  float scale, *work;
  int64_t work_per_thread;
} Attention;

// Scaled scores of one block of queries against all keys up to its last row.
static void block_scores(const Attention *s, const float *q, const float *k, int64_t from, int64_t rows, float *score) {
  int64_t keys = from + rows, ld = 3 * s->H * s->D;
  blas_sgemm(ROW_MAJOR, NO, YES, rows, keys, s->D, s->scale, q + from * ld, ld, k, ld, 0.0f, score, keys);
}

static void attention_item(int64_t item, int thread, void *arg) {
  const Attention *s = arg;
  int64_t h = item % s->H, b = item / s->H, width = s->H * s->D, ld = 3 * width;
  const float *q = s->qkv + b * s->T * ld + h * s->D, *k = q + width, *v = k + width;
  float *score = s->work + thread * s->work_per_thread, *lse = s->lse + item * s->T;
  for (int64_t from = 0; from < s->T; from += QUERY_BLOCK) {
    int64_t rows = min64(QUERY_BLOCK, s->T - from), keys = from + rows;
    block_scores(s, q, k, from, rows, score);
    for (int64_t i = 0; i < rows; i++) {
      float *row = score + i * keys, top = row[0], sum = 0.0f;
      int64_t visible = from + i + 1;
      for (int64_t j = 1; j < visible; j++) top = row[j] > top ? row[j] : top;
      for (int64_t j = 0; j < visible; j++) sum += row[j] = fast_exp(row[j] - top);
      for (int64_t j = 0; j < visible; j++) row[j] *= 1.0f / sum;
      memset(row + visible, 0, (keys - visible) * sizeof(float));
      lse[from + i] = top + logf(sum);
    }
    blas_sgemm(ROW_MAJOR, NO, NO, rows, s->D, keys, 1.0f, score, keys, v, ld, 0.0f,
               s->out + (b * s->T + from) * width + h * s->D, width);
  }
}

// dims: B, T, H, D. consts: scale. bufs: out, lse, qkv
void attention(void **bufs, const int64_t *d, const float *c) {
  int64_t per_thread = QUERY_BLOCK * d[1];
  Attention s = {.out = bufs[0], .lse = bufs[1], .qkv = bufs[2], .T = d[1], .H = d[2], .D = d[3], .scale = c[0],
                 .work = scratch(0, pool.n_threads * per_thread), .work_per_thread = per_thread};
  if (!s.work) return;
  parallel(d[0] * d[2], attention_item, &s);
}

// P = exp(S - lse); dP = dO V^T; dS = P * (dP - rowsum(dO * O)) * scale; dQ = dS K, dK += dS^T Q, dV += P^T dO
static void attention_bwd_item(int64_t item, int thread, void *arg) {
  const Attention *s = arg;
  int64_t h = item % s->H, b = item / s->H, width = s->H * s->D, ld = 3 * width;
  const float *q = s->qkv + b * s->T * ld + h * s->D, *k = q + width, *v = k + width, *lse = s->lse + item * s->T;
  float *dq = s->dqkv + (q - s->qkv), *dk = dq + width, *dv = dk + width;
  float *p = s->work + thread * s->work_per_thread, *dp = p + QUERY_BLOCK * s->T;
  float beta = 0.0f;  // the last block covers every key, so it may overwrite what the others then add to
  for (int64_t from = (s->T - 1) / QUERY_BLOCK * QUERY_BLOCK; from >= 0; from -= QUERY_BLOCK, beta = 1.0f) {
    int64_t rows = min64(QUERY_BLOCK, s->T - from), keys = from + rows;
    const float *out = s->saved_out + (b * s->T + from) * width + h * s->D, *dout = s->dout + (out - s->saved_out);
    block_scores(s, q, k, from, rows, p);
    blas_sgemm(ROW_MAJOR, NO, YES, rows, keys, s->D, 1.0f, dout, width, v, ld, 0.0f, dp, keys);
    for (int64_t i = 0; i < rows; i++) {
      int64_t visible = from + i + 1;
      float *pi = p + i * keys, *di = dp + i * keys, dot = 0.0f, top = lse[from + i];
      for (int64_t j = 0; j < s->D; j++) dot += out[i * width + j] * dout[i * width + j];
      for (int64_t j = 0; j < visible; j++) {
        pi[j] = fast_exp(pi[j] - top);
        di[j] = pi[j] * (di[j] - dot) * s->scale;
      }
      memset(pi + visible, 0, (keys - visible) * sizeof(float));
      memset(di + visible, 0, (keys - visible) * sizeof(float));
    }
    blas_sgemm(ROW_MAJOR, NO, NO, rows, s->D, keys, 1.0f, dp, keys, k, ld, 0.0f, dq + from * ld, ld);
    blas_sgemm(ROW_MAJOR, YES, NO, keys, s->D, rows, 1.0f, dp, keys, q + from * ld, ld, beta, dk, ld);
    blas_sgemm(ROW_MAJOR, YES, NO, keys, s->D, rows, 1.0f, p, keys, dout, width, beta, dv, ld);
  }
}

// dims: B, T, H, D. consts: scale. bufs: dqkv, dout, out, lse, qkv
void attention_bwd(void **bufs, const int64_t *d, const float *c) {
  int64_t per_thread = 2 * QUERY_BLOCK * d[1];
  Attention s = {.dqkv = bufs[0], .dout = bufs[1], .saved_out = bufs[2], .lse = bufs[3], .qkv = bufs[4], .T = d[1],
                 .H = d[2], .D = d[3], .scale = c[0], .work = scratch(0, pool.n_threads * per_thread),
                 .work_per_thread = per_thread};
  if (!s.work) return;
  parallel(d[0] * d[2], attention_bwd_item, &s);
}
