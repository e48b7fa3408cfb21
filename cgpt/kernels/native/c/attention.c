#include "common.h"

// ---- causal attention over packed q, k, v (B, T, 3, H, D): only blocks on and below the diagonal are computed,
// the T x T matrix is never kept, and the backward pass recomputes it from the log-sum-exp of each row ----

typedef struct { int64_t B, T, H, D; } AttentionDims;

typedef struct {
  const AttentionDims *dims;
  float *out, *lse, *dqkv;  // (B, T, H, D), (B, H, T) and (B, T, 3, H, D); the backward pass reads the first two
  const float *qkv, *dout;
  float scale, *work;
  int64_t work_per_thread;
} Attention;

// score (rows, from + rows) = scale q k^T for a block of a head's queries and all keys up to its last row.
static void block_scores(const Attention *s, const float *q, const float *k, int64_t from, int64_t rows, float *score) {
  int64_t keys = from + rows, D = s->dims->D, ld = 3 * s->dims->H * D;
  blas_sgemm(ROW_MAJOR, NO, YES, rows, keys, D, s->scale, q + from * ld, ld, k, ld, 0.0f, score, keys);
}

// One head of one sequence: its columns of out, and its log-sum-exp (T).
static void attention_item(int64_t item, int thread, const void *arg) {
  const Attention *s = arg;
  int64_t T = s->dims->T, H = s->dims->H, D = s->dims->D, h = item % H, b = item / H, C = H * D, ld = 3 * C;
  const float *q = s->qkv + b * T * ld + h * D, *k = q + C, *v = k + C;
  float *score = s->work + thread * s->work_per_thread, *lse = s->lse + item * T;
  for (int64_t from = 0; from < T; from += QUERY_BLOCK) {
    int64_t rows = min64(QUERY_BLOCK, T - from), keys = from + rows;
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
    float *out = s->out + (b * T + from) * C + h * D;
    blas_sgemm(ROW_MAJOR, NO, NO, rows, D, keys, 1.0f, score, keys, v, ld, 0.0f, out, C);
  }
}

// Start the items of one of both passes, which need so many blocks of scores at once.
static void attend(Attention s, int64_t n_blocks, item_fn fn) {
  s.work_per_thread = n_blocks * QUERY_BLOCK * s.dims->T;
  s.work = scratch(0, pool.n_threads * s.work_per_thread);
  if (s.work) parallel(s.dims->B * s.dims->H, fn, &s);
}

// out (B, T, H, D) = causal softmax(scale q k^T) v, and the log-sum-exp of each row. bufs: out, lse (B, H, T), qkv
void attention(void **bufs, const void *dims, const void *consts) {
  Attention s = {.dims = dims, .out = bufs[0], .lse = bufs[1], .qkv = bufs[2], .scale = *(const float *)consts};
  attend(s, 1, attention_item);
}

// P = exp(S - lse); dP = dO V^T; dS = P * (dP - rowsum(dO * O)) * scale; dQ = dS K, dK += dS^T Q, dV += P^T dO
static void attention_bwd_item(int64_t item, int thread, const void *arg) {
  const Attention *s = arg;
  int64_t T = s->dims->T, H = s->dims->H, D = s->dims->D, h = item % H, b = item / H, C = H * D, ld = 3 * C;
  const float *q = s->qkv + b * T * ld + h * D, *k = q + C, *v = k + C, *lse = s->lse + item * T;
  float *dq = s->dqkv + (q - s->qkv), *dk = dq + C, *dv = dk + C;
  float *p = s->work + thread * s->work_per_thread, *dp = p + QUERY_BLOCK * T;
  float beta = 0.0f;  // the last block covers every key, so it may overwrite what the others then add to
  for (int64_t from = (T - 1) / QUERY_BLOCK * QUERY_BLOCK; from >= 0; from -= QUERY_BLOCK, beta = 1.0f) {
    int64_t rows = min64(QUERY_BLOCK, T - from), keys = from + rows;
    const float *out = s->out + (b * T + from) * C + h * D, *dout = s->dout + (out - s->out);
    block_scores(s, q, k, from, rows, p);
    blas_sgemm(ROW_MAJOR, NO, YES, rows, keys, D, 1.0f, dout, C, v, ld, 0.0f, dp, keys);
    for (int64_t i = 0; i < rows; i++) {
      int64_t visible = from + i + 1;
      float *pi = p + i * keys, *di = dp + i * keys, dot = 0.0f, top = lse[from + i];
      for (int64_t j = 0; j < D; j++) dot += out[i * C + j] * dout[i * C + j];
      for (int64_t j = 0; j < visible; j++) {
        pi[j] = fast_exp(pi[j] - top);
        di[j] = pi[j] * (di[j] - dot) * s->scale;
      }
      memset(pi + visible, 0, (keys - visible) * sizeof(float));
      memset(di + visible, 0, (keys - visible) * sizeof(float));
    }
    blas_sgemm(ROW_MAJOR, NO, NO, rows, D, keys, 1.0f, dp, keys, k, ld, 0.0f, dq + from * ld, ld);
    blas_sgemm(ROW_MAJOR, YES, NO, keys, D, rows, 1.0f, dp, keys, q + from * ld, ld, beta, dk, ld);
    blas_sgemm(ROW_MAJOR, YES, NO, keys, D, rows, 1.0f, p, keys, dout, C, beta, dv, ld);
  }
}

// dqkv (B, T, 3, H, D), the gradient of `attention` from dout (B, T, H, D). bufs: dqkv, dout, out, lse, qkv
void attention_bwd(void **bufs, const void *dims, const void *consts) {
  Attention s = {.dims = dims, .dqkv = bufs[0], .dout = bufs[1], .out = bufs[2], .lse = bufs[3], .qkv = bufs[4],
                 .scale = *(const float *)consts};
  attend(s, 2, attention_bwd_item);
}
