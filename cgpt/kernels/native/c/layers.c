#include "common.h"

enum { BIAS_COLS = 128, SLOPES = 16384, NORM_ROWS = 32, NORM_BWD_ITEMS = 16, TABLE_COLS = 32 };  // of an item

// ---- linear: y = x w + b, w (n_in, n_out) as in GPT-2; optionally followed by an activation ----

typedef struct { int64_t rows, n_in, n_out, group_rows, activation; } LinearDims;

// y (rows, n_out) = activation(x (rows, n_in) w + b (n_out)), groups of rows on their own.
// bufs: y, with an activation then also what it is given, x, w, b
void linear(void **bufs, const void *dims, const void *) {
  const LinearDims *d = dims;
  float *activated = d->activation == IDENTITY ? NULL : *bufs++;
  gemm((Gemm){.m = d->group_rows, .n = d->n_out, .k = d->n_in, .a = bufs[1], .b = bufs[2], .c = bufs[0],
              .n_groups = d->rows / d->group_rows, .bias = bufs[3], .activated = activated,
              .activation = d->activation});
}

typedef struct { float *out; const float *dy, *before; int64_t rows, n_out, activation; } LinearBwd;

// out (n_out) = the sum of dy's rows, for some of its columns
static void bias_gradient_item(int64_t item, int, const void *arg) {
  const LinearBwd *s = arg;
  int64_t from = item * BIAS_COLS, to = min64(from + BIAS_COLS, s->n_out);
  for (int64_t j = from; j < to; j++) s->out[j] = 0.0f;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = from; j < to; j++) s->out[j] += s->dy[i * s->n_out + j];
}

// out (rows, n_out) = dy activation'(before), for some of its numbers
static void activation_gradient_item(int64_t item, int, const void *arg) {
  const LinearBwd *s = arg;
  int64_t from = item * SLOPES, to = min64(from + SLOPES, s->rows * s->n_out);
  activation_gradient(s->activation, s->before + from, s->dy + from, s->out + from, to - from);
}

// Gradients dx (rows, n_in), dw (n_in, n_out), db (n_out) of `linear`, from dy (rows, n_out).
// bufs: dx, dw, db, dy, x, w, with an activation then also what it was given
void linear_bwd(void **bufs, const void *dims, const void *) {
  const LinearDims *d = dims;
  int64_t rows = d->rows, n_in = d->n_in, n_out = d->n_out;
  float *dx = bufs[0], *dw = bufs[1], *db = bufs[2], *dy = bufs[3], *x = bufs[4], *w = bufs[5];
  LinearBwd s = {.dy = dy, .rows = rows, .n_out = n_out, .activation = d->activation};
  if (d->activation != IDENTITY) {
    s.before = bufs[6], s.out = scratch(0, rows * n_out);
    if (!s.out) return;
    parallel(div_up(rows * n_out, SLOPES), activation_gradient_item, &s);
    s.dy = dy = s.out;
  }
  gemm((Gemm){.m = rows, .n = n_in, .k = n_out, .a = dy, .b = w, .b_transposed = 1, .c = dx});
  gemm((Gemm){.m = n_in, .n = n_out, .k = rows, .a = x, .a_transposed = 1, .b = dy, .c = dw});
  s.out = db;
  parallel(div_up(n_out, BIAS_COLS), bias_gradient_item, &s);
}

// ---- layer norm, with the residual sum in front of it: r = x + f, y = (norm(r) * w + b) * scale ----

typedef struct { int64_t rows, C, has_second; } NormDims;  // has_second: whether there is an f; in the gradient, a dr

typedef struct {
  const NormDims *dims;
  float *r, *y, *mean, *rstd, epsilon, scale;
  const float *x, *f, *w, *b;
} Norm;

// Some rows of r and y (rows, C), mean and rstd (rows) of r's rows.
static void add_layer_norm_item(int64_t item, int, const void *arg) {
  const Norm *s = arg;
  int64_t C = s->dims->C, end = min64((item + 1) * NORM_ROWS, s->dims->rows);
  const float *x = s->x, *f = s->f, *w = s->w, *b = s->b;
  float *y = s->y, scale = s->scale;
  for (int64_t i = item * NORM_ROWS; i < end; i++) {
    float sum = 0.0f, squares = 0.0f, *row = s->r + i * C;
    for (int64_t j = 0; j < C; j++) row[j] = f ? x[i * C + j] + f[i * C + j] : x[i * C + j];
    for (int64_t j = 0; j < C; j++) sum += row[j];
    float mean = sum / C;
    for (int64_t j = 0; j < C; j++) squares += (row[j] - mean) * (row[j] - mean);
    float rstd = 1.0f / sqrtf(squares / C + s->epsilon);
    for (int64_t j = 0; j < C; j++) y[i * C + j] = ((row[j] - mean) * rstd * w[j] + b[j]) * scale;
    s->mean[i] = mean, s->rstd[i] = rstd;
  }
}

// r = x (+ f), y = (norm(r) * w + b) * scale: all (rows, C), w and b (C); mean and rstd (rows) are for the gradient.
// bufs: r, y, mean, rstd, x, w, b, f if there is one
void add_layer_norm(void **bufs, const void *dims, const void *consts) {
  const NormDims *d = dims;
  const struct { float epsilon, scale; } *c = consts;
  Norm s = {.dims = d, .r = bufs[0], .y = bufs[1], .mean = bufs[2], .rstd = bufs[3], .x = bufs[4], .w = bufs[5],
            .b = bufs[6], .f = d->has_second ? bufs[7] : NULL, .epsilon = c->epsilon, .scale = c->scale};
  parallel(div_up(d->rows, NORM_ROWS), add_layer_norm_item, &s);
}

typedef struct {
  const NormDims *dims;
  float *dx, *partial, scale;  // partial: dw and db of each item
  const float *dr, *dy, *r, *mean, *rstd, *w;
  int64_t rows_per_item;
} NormBwd;

// Some rows of dx (rows, C), and what they add to dw and db.
static void add_layer_norm_bwd_item(int64_t item, int, const void *arg) {
  const NormBwd *s = arg;
  int64_t C = s->dims->C, end = min64((item + 1) * s->rows_per_item, s->dims->rows);
  const float *w = s->w, *dr = s->dr;
  float *dx = s->dx, *dw = s->partial + item * 2 * C, *db = dw + C, scale = s->scale;
  memset(dw, 0, 2 * C * sizeof(float));
  for (int64_t i = item * s->rows_per_item; i < end; i++) {
    const float *row = s->r + i * C, *dy = s->dy + i * C;
    float mean = s->mean[i], rstd = s->rstd[i], sum = 0.0f, dot = 0.0f;
    for (int64_t j = 0; j < C; j++) {
      float normed = (row[j] - mean) * rstd, slope = dy[j] * scale * w[j];
      sum += slope, dot += slope * normed;
    }
    sum /= C, dot /= C;
    for (int64_t j = 0; j < C; j++) {
      float normed = (row[j] - mean) * rstd, slope = dy[j] * scale;
      dw[j] += slope * normed, db[j] += slope;
      float through = (slope * w[j] - sum - normed * dot) * rstd;
      dx[i * C + j] = dr ? dr[i * C + j] + through : through;
    }
  }
}

// Gradients dx (rows, C), which is f's too, dw and db (C) of `add_layer_norm`, from dr and dy (rows, C).
// bufs: dx, dw, db, dr (not read where r was not used), dy, r, mean, rstd, w
void add_layer_norm_bwd(void **bufs, const void *dims, const void *consts) {
  const NormDims *d = dims;
  const struct { float scale; } *c = consts;
  int64_t C = d->C, rows_per_item = div_up(d->rows, NORM_BWD_ITEMS), items = div_up(d->rows, rows_per_item);
  NormBwd s = {.dims = d, .dx = bufs[0], .dr = d->has_second ? bufs[3] : NULL, .dy = bufs[4], .r = bufs[5],
               .mean = bufs[6], .rstd = bufs[7], .w = bufs[8], .scale = c->scale, .rows_per_item = rows_per_item,
               .partial = scratch(0, items * 2 * C)};
  if (!s.partial) return;
  parallel(items, add_layer_norm_bwd_item, &s);
  float *dw = bufs[1], *db = bufs[2];
  memset(dw, 0, C * sizeof(float)), memset(db, 0, C * sizeof(float));
  for (int64_t item = 0; item < items; item++)
    for (int64_t j = 0; j < C; j++) dw[j] += s.partial[item * 2 * C + j], db[j] += s.partial[item * 2 * C + C + j];
}

// ---- token and position embedding ----

// x (B, T, C) = (wte[token] + wpe[position]) * scale. bufs: x, tokens (B, T), wte (V, C), wpe (S, C)
void embedding(void **bufs, const void *dims, const void *consts) {
  const struct { int64_t B, T, C; } *d = dims;
  float *x = bufs[0], *wte = bufs[2], *wpe = bufs[3], scale = *(const float *)consts;
  const int32_t *tokens = bufs[1];
  int64_t C = d->C;
  for (int64_t i = 0; i < d->B * d->T; i++)
    for (int64_t j = 0; j < C; j++) x[i * C + j] = (wte[tokens[i] * C + j] + wpe[i % d->T * C + j]) * scale;
}

typedef struct {
  const struct { int64_t B, T, C, S, cleared; } *dims;  // cleared: rows of dwte that are set to 0 first
  float *dwte, *dwpe, scale;
  const float *dx;
  const int32_t *tokens;
} EmbeddingBwd;

// Some columns of both gradients.
static void embedding_bwd_item(int64_t item, int, const void *arg) {
  const EmbeddingBwd *s = arg;
  int64_t T = s->dims->T, C = s->dims->C, from = item * TABLE_COLS, to = min64(from + TABLE_COLS, C);
  float *dwte = s->dwte, *dwpe = s->dwpe, scale = s->scale;
  for (int64_t v = 0; v < s->dims->cleared; v++) memset(dwte + v * C + from, 0, (to - from) * sizeof(float));
  for (int64_t t = 0; t < s->dims->S; t++) memset(dwpe + t * C + from, 0, (to - from) * sizeof(float));
  for (int64_t i = 0; i < s->dims->B * T; i++)
    for (int64_t j = from; j < to; j++) {
      dwte[s->tokens[i] * C + j] += scale * s->dx[i * C + j];
      dwpe[i % T * C + j] += scale * s->dx[i * C + j];
    }
}

// Gradients dwte (V, C) and dwpe (S, C) of `embedding`, from dx (B, T, C). Where dwte holds the gradient of a tied
// head, none of its rows are cleared, and this one is added. bufs: dwte, dwpe, dx, tokens (B, T)
void embedding_bwd(void **bufs, const void *dims, const void *consts) {
  EmbeddingBwd s = {.dims = dims, .dwte = bufs[0], .dwpe = bufs[1], .dx = bufs[2], .tokens = bufs[3],
                    .scale = *(const float *)consts};
  parallel(div_up(s.dims->C, TABLE_COLS), embedding_bwd_item, &s);
}
