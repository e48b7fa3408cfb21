#include "common.h"

// ---- linear: y = x w + b, w (in, out) as in GPT-2; optionally followed by an activation ----

// dims: rows, n_in, n_out, rows per independent group, activation. bufs: y, [pre-activation], x, w, b
void linear(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  int active = d[4] != IDENTITY;
  float *pre = bufs[active], *x = bufs[1 + active], *w = bufs[2 + active], *bias = bufs[3 + active];
  gemm((Gemm){NO, NO, d[3], d[2], d[1], x, w, 0.0f, pre, d[1], d[2], d[2], d[0] / d[3], d[3] * d[1], d[3] * d[2], bias,
              active ? bufs[0] : NULL, d[4]});
}

typedef struct { const float *dy, *pre; float *out; int64_t rows, cols, activation; } Columns;

static void column_sum_item(int64_t item, int thread, void *arg) {
  const Columns *s = arg;
  (void)thread;
  int64_t from = item * 128, to = min64(from + 128, s->cols);
  for (int64_t j = from; j < to; j++) s->out[j] = 0.0f;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = from; j < to; j++) s->out[j] += s->dy[i * s->cols + j];
}

static void activation_backward_item(int64_t item, int thread, void *arg) {
  const Columns *s = arg;
  (void)thread;
  int64_t from = item * 16384, to = min64(from + 16384, s->rows * s->cols);
  activation_gradient(s->activation, s->pre + from, s->dy + from, s->out + from, to - from);
}

// dims as forward. bufs: dx, dw, db, dy, [pre], x, w
void linear_bwd(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  int64_t rows = d[0], n_in = d[1], n_out = d[2];
  int active = d[4] != IDENTITY;
  float *dy = bufs[3], *x = bufs[4 + active], *w = bufs[5 + active];
  if (active) {
    Columns g = {dy, bufs[4], scratch(0, rows * n_out), rows, n_out, d[4]};
    if (!g.out) return;
    parallel(div_up(rows * n_out, 16384), activation_backward_item, &g);
    dy = g.out;
  }
  gemm((Gemm){NO, YES, rows, n_in, n_out, dy, w, 0.0f, bufs[0], n_out, n_out, n_in});
  gemm((Gemm){YES, NO, n_in, n_out, rows, x, dy, 0.0f, bufs[1], n_in, n_out, n_out});
  Columns sum = {dy, NULL, bufs[2], rows, n_out, IDENTITY};
  parallel(div_up(n_out, 128), column_sum_item, &sum);
}

// ---- layer norm, with the residual sum in front of it: r = x + f, y = (norm(r) * w + b) * scale ----

typedef struct { void **bufs; int64_t rows, cols, rows_per_item, has_second; float epsilon, scale, *partial; } Norm;

static void norm_forward_item(int64_t item, int thread, void *arg) {
  const Norm *s = arg;
  (void)thread;
  float *r = s->bufs[0], *y = s->bufs[1], *mean = s->bufs[2], *rstd = s->bufs[3];
  const float *x = s->bufs[4], *f = s->bufs[5];
  const float *w = s->bufs[5 + s->has_second], *b = s->bufs[6 + s->has_second];
  int64_t n = s->cols, end = min64((item + 1) * s->rows_per_item, s->rows);
  for (int64_t i = item * s->rows_per_item; i < end; i++) {
    float sum = 0.0f, squares = 0.0f, *row = r + i * n;
    for (int64_t j = 0; j < n; j++) row[j] = s->has_second ? x[i * n + j] + f[i * n + j] : x[i * n + j];
    for (int64_t j = 0; j < n; j++) sum += row[j];
    float mu = sum / n, scale = s->scale;
    for (int64_t j = 0; j < n; j++) squares += (row[j] - mu) * (row[j] - mu);
    float inverse = 1.0f / sqrtf(squares / n + s->epsilon);
    for (int64_t j = 0; j < n; j++) y[i * n + j] = ((row[j] - mu) * inverse * w[j] + b[j]) * scale;
    mean[i] = mu, rstd[i] = inverse;
  }
}

// dims: rows, d_model, whether there is an f. consts: epsilon, scale. bufs: r, y, mean, rstd, x, [f], w, b
void add_layer_norm(void **bufs, const int64_t *d, const float *c) {
  Norm s = {bufs, d[0], d[1], 32, d[2], c[0], c[1], NULL};
  parallel(div_up(d[0], 32), norm_forward_item, &s);
}

static void norm_backward_item(int64_t item, int thread, void *arg) {
  const Norm *s = arg;
  (void)thread;
  float *dx = s->bufs[0];
  const float *dr = s->bufs[3], *dy = s->bufs[4], *r = s->bufs[5], *mean = s->bufs[6], *rstd = s->bufs[7], *w = s->bufs[8];
  int64_t n = s->cols, end = min64((item + 1) * s->rows_per_item, s->rows);
  float *dw = s->partial + item * 2 * n, *db = dw + n;
  memset(dw, 0, 2 * n * sizeof(float));
  for (int64_t i = item * s->rows_per_item; i < end; i++) {
    const float *row = r + i * n, *g = dy + i * n;
    float mu = mean[i], inverse = rstd[i], sum = 0.0f, dot = 0.0f, scale = s->scale;
    for (int64_t j = 0; j < n; j++) {
      float normed = (row[j] - mu) * inverse, gw = g[j] * scale * w[j];
      sum += gw, dot += gw * normed;
    }
    sum /= n, dot /= n;
    for (int64_t j = 0; j < n; j++) {
      float normed = (row[j] - mu) * inverse;
      float gs = g[j] * scale;
      dw[j] += gs * normed, db[j] += gs;
      float through = (gs * w[j] - sum - normed * dot) * inverse;
      dx[i * n + j] = s->has_second ? dr[i * n + j] + through : through;
    }
  }
}

// dims: rows, d_model, whether r was used (there is a dr). consts: scale. bufs: dx (also the gradient of f), dw, db, dr, dy, r, mean,
// rstd, w
void add_layer_norm_bwd(void **bufs, const int64_t *d, const float *c) {
  int64_t n = d[1], rows_per_item = div_up(d[0], 16), items = div_up(d[0], rows_per_item);
  Norm s = {bufs, d[0], n, rows_per_item, d[2], 0.0f, c[0], scratch(0, items * 2 * n)};
  if (!s.partial) return;
  parallel(items, norm_backward_item, &s);
  float *dw = bufs[1], *db = bufs[2];
  memset(dw, 0, n * sizeof(float)), memset(db, 0, n * sizeof(float));
  for (int64_t item = 0; item < items; item++)
    for (int64_t j = 0; j < n; j++) dw[j] += s.partial[item * 2 * n + j], db[j] += s.partial[item * 2 * n + n + j];
}

// ---- token and position embedding: x = (wte[token] + wpe[position]) * scale ----

// dims: B, T, d_model, vocab. consts: scale. bufs: x, tokens, wte, wpe
void embedding(void **bufs, const int64_t *d, const float *c) {
  float *x = bufs[0], *wte = bufs[2], *wpe = bufs[3];
  const int32_t *tokens = bufs[1];
  int64_t n = d[2];
  float scale = c[0];
  for (int64_t i = 0; i < d[0] * d[1]; i++)
    for (int64_t j = 0; j < n; j++) x[i * n + j] = (wte[tokens[i] * n + j] + wpe[i % d[1] * n + j]) * scale;
}

typedef struct { void **bufs; const int64_t *d; float scale; } Call;

static void embedding_bwd_item(int64_t item, int thread, void *arg) {
  const Call *s = arg;
  (void)thread;
  float *dwte = s->bufs[0], *dwpe = s->bufs[1], *dx = s->bufs[2];
  const int32_t *tokens = s->bufs[3];
  int64_t n = s->d[2], T = s->d[1], from = item * 32, to = min64(from + 32, n);
  float scale = s->scale;
  for (int64_t v = 0; v < s->d[5]; v++) memset(dwte + v * n + from, 0, (to - from) * sizeof(float));
  for (int64_t t = 0; t < s->d[4]; t++) memset(dwpe + t * n + from, 0, (to - from) * sizeof(float));
  for (int64_t i = 0; i < s->d[0] * T; i++)
    for (int64_t j = from; j < to; j++) {
      dwte[tokens[i] * n + j] += scale * dx[i * n + j];
      dwpe[i % T * n + j] += scale * dx[i * n + j];
    }
}

// dims: B, T, d_model, vocab, rows of wpe, rows of dwte to clear: none where it holds the gradient of a tied head, which
// is added to, else all. consts: scale. bufs: dwte, dwpe, dx, tokens
void embedding_bwd(void **bufs, const int64_t *d, const float *c) {
  Call s = {bufs, d, c[0]};
  parallel(div_up(d[2], 32), embedding_bwd_item, &s);
}
