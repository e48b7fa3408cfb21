#include "common.h"

enum { BIAS_COLS = 128, SLOPES = 16384, NORM_ROWS = 32, NORM_BWD_ITEMS = 16, TABLE_COLS = 32 };  // of an item

// ---- linear: y = x w + b, w (n_in, n_out) as in GPT-2; optionally followed by an activation ----

typedef struct { int64_t rows, n_in, n_out, group_rows, activation, bfloat16; } LinearDims;

// y (rows, n_out) = activation(x (rows, n_in) w + b (n_out)), groups of rows on their own.
// Where there is an activation, its argument is an output too, after y.
void linear(const void *arg) {
  const struct { void *const *bufs; const LinearDims *dims; } *call = arg;
  const LinearDims *d = call->dims;
  int active = d->activation != IDENTITY;
  void *const *bufs = call->bufs + active;
  gemm((Gemm){.m = d->group_rows, .n = d->n_out, .k = d->n_in, .n_groups = d->rows / d->group_rows, .c = bufs[0],
              .a = bufs[1], .b = bufs[2], .bias = bufs[3], .activated = active ? call->bufs[0] : NULL,
              .activation = d->activation, .bfloat16 = d->bfloat16});
}

typedef struct { float *out; const float *dy, *before; int64_t rows, n_out, activation; } LinearBwd;

// out (n_out) = the sum of dy's rows, for some of its columns.
static void bias_gradient_item(int64_t item, int, const void *arg) {
  const LinearBwd *s = arg;
  int64_t from = item * BIAS_COLS, to = min64(from + BIAS_COLS, s->n_out);
  for (int64_t j = from; j < to; j++) s->out[j] = 0.0f;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = from; j < to; j++) s->out[j] += s->dy[i * s->n_out + j];
}

// out (rows, n_out) = dy activation'(before), for some of its numbers.
static void activation_gradient_item(int64_t item, int, const void *arg) {
  const LinearBwd *s = arg;
  int64_t from = item * SLOPES, to = min64(from + SLOPES, s->rows * s->n_out);
  activation_gradient(s->activation, s->before + from, s->dy + from, s->out + from, to - from);
}

// Gradients dx (rows, n_in), dw (n_in, n_out), db (n_out) of `linear`, from dy (rows, n_out).
void linear_bwd(const void *arg) {
  const struct {
    const struct { float *dx, *dw, *db; const float *dy, *x, *w, *before; } *bufs;  // before: if there is an activation
    const LinearDims *dims;
  } *call = arg;
  int64_t rows = call->dims->rows, n_in = call->dims->n_in, n_out = call->dims->n_out;
  LinearBwd s = {.dy = call->bufs->dy, .rows = rows, .n_out = n_out, .activation = call->dims->activation};
  if (s.activation != IDENTITY) {
    s.before = call->bufs->before, s.out = scratch(0, rows * n_out);
    if (!s.out) return;
    parallel(div_up(rows * n_out, SLOPES), activation_gradient_item, &s);
    s.dy = s.out;
  }
  gemm((Gemm){.m = rows, .n = n_in, .k = n_out, .a = s.dy, .b = call->bufs->w, .b_transposed = 1, .c = call->bufs->dx,
              .bfloat16 = call->dims->bfloat16});
  gemm((Gemm){.m = n_in, .n = n_out, .k = rows, .a = call->bufs->x, .a_transposed = 1, .b = s.dy, .c = call->bufs->dw,
              .bfloat16 = call->dims->bfloat16});
  s.out = call->bufs->db;
  parallel(div_up(n_out, BIAS_COLS), bias_gradient_item, &s);
}

// ---- layer norm, with the residual sum in front of it: r = x + f, y = (norm(r) * w + b) * scale ----

typedef struct {
  const struct { float *r, *y, *mean, *rstd; const float *x, *w, *b, *f; } *bufs;  // f: if there is one
  const struct { int64_t rows, C, has_f; } *dims;
  const struct { float epsilon, scale; } *consts;
} AddLayerNorm;

// Some rows of all outputs.
static void add_layer_norm_item(int64_t item, int, const void *arg) {
  const AddLayerNorm *call = arg;
  int64_t C = call->dims->C, end = min64((item + 1) * NORM_ROWS, call->dims->rows);
  const float *x = call->bufs->x, *w = call->bufs->w, *b = call->bufs->b, *f = call->dims->has_f ? call->bufs->f : NULL;
  float *y = call->bufs->y, epsilon = call->consts->epsilon, scale = call->consts->scale;
  for (int64_t i = item * NORM_ROWS; i < end; i++) {
    float sum = 0.0f, squares = 0.0f, *row = call->bufs->r + i * C;
    for (int64_t j = 0; j < C; j++) row[j] = f ? x[i * C + j] + f[i * C + j] : x[i * C + j];
    for (int64_t j = 0; j < C; j++) sum += row[j];
    float mean = sum / C;
    for (int64_t j = 0; j < C; j++) squares += (row[j] - mean) * (row[j] - mean);
    float rstd = 1.0f / sqrtf(squares / C + epsilon);
    for (int64_t j = 0; j < C; j++) y[i * C + j] = ((row[j] - mean) * rstd * w[j] + b[j]) * scale;
    call->bufs->mean[i] = mean, call->bufs->rstd[i] = rstd;
  }
}

// r = x (+ f), y = (norm(r) * w + b) * scale: all (rows, C), w and b (C); mean and rstd (rows) are for the gradient.
void add_layer_norm(const void *arg) {
  const AddLayerNorm *call = arg;
  parallel(div_up(call->dims->rows, NORM_ROWS), add_layer_norm_item, call);
}

typedef struct {
  const struct { float *dx, *dw, *db; const float *dr, *dy, *r, *mean, *rstd, *w; } *bufs;
  const struct { int64_t rows, C, has_dr; } *dims;
  const float *scale;
} AddLayerNormBwd;

static int64_t rows_per_item(const AddLayerNormBwd *call) { return div_up(call->dims->rows, NORM_BWD_ITEMS); }

// Some rows of dx, and what they add to dw and db: (2, C) of the scratch.
static void add_layer_norm_bwd_item(int64_t item, int, const void *arg) {
  const AddLayerNormBwd *call = arg;
  int64_t C = call->dims->C, from = item * rows_per_item(call);
  int64_t end = min64(from + rows_per_item(call), call->dims->rows);
  const float *w = call->bufs->w, *dr = call->dims->has_dr ? call->bufs->dr : NULL;
  float *dx = call->bufs->dx, *dw = scratch(0, (item + 1) * 2 * C) + item * 2 * C, *db = dw + C, scale = *call->scale;
  memset(dw, 0, 2 * C * sizeof(float));
  for (int64_t i = from; i < end; i++) {
    const float *row = call->bufs->r + i * C, *dy = call->bufs->dy + i * C;
    float mean = call->bufs->mean[i], rstd = call->bufs->rstd[i], sum = 0.0f, dot = 0.0f;
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

// Gradients dx (rows, C), which is f's too, dw and db (C) of `add_layer_norm`, from dy and, if r is used, dr (rows, C).
void add_layer_norm_bwd(const void *arg) {
  const AddLayerNormBwd *call = arg;
  int64_t C = call->dims->C, items = div_up(call->dims->rows, rows_per_item(call));
  float *partial = scratch(0, items * 2 * C), *dw = call->bufs->dw, *db = call->bufs->db;
  if (!partial) return;
  parallel(items, add_layer_norm_bwd_item, call);
  memset(dw, 0, C * sizeof(float)), memset(db, 0, C * sizeof(float));
  for (int64_t item = 0; item < items; item++)
    for (int64_t j = 0; j < C; j++) dw[j] += partial[item * 2 * C + j], db[j] += partial[item * 2 * C + C + j];
}

// ---- token and position embedding ----

// x (B, T, C) = (wte[token] + wpe[position]) * scale; the positions (B, T) are those given, else 0 to T - 1.
void embedding(const void *arg) {
  const struct {
    const struct { float *x; const int32_t *tokens; const float *wte, *wpe; const int32_t *positions; } *bufs;
    const struct { int64_t B, T, C, has_positions; } *dims;
    const float *scale;
  } *call = arg;
  int64_t T = call->dims->T, C = call->dims->C;
  float *x = call->bufs->x, scale = *call->scale;
  for (int64_t i = 0; i < call->dims->B * T; i++) {
    const float *of_token = call->bufs->wte + call->bufs->tokens[i] * C;
    const float *of_position = call->bufs->wpe + (call->dims->has_positions ? call->bufs->positions[i] : i % T) * C;
    for (int64_t j = 0; j < C; j++) x[i * C + j] = (of_token[j] + of_position[j]) * scale;
  }
}

typedef struct {
  const struct { float *dwte, *dwpe; const float *dx; const int32_t *tokens; } *bufs;
  const struct { int64_t B, T, C, S, cleared; } *dims;  // cleared: rows of dwte that are set to 0 first
  const float *scale;
} EmbeddingBwd;

// Some columns of both gradients.
static void embedding_bwd_item(int64_t item, int, const void *arg) {
  const EmbeddingBwd *call = arg;
  int64_t T = call->dims->T, C = call->dims->C, from = item * TABLE_COLS, to = min64(from + TABLE_COLS, C);
  float *dwte = call->bufs->dwte, *dwpe = call->bufs->dwpe, scale = *call->scale;
  const float *dx = call->bufs->dx;
  const int32_t *tokens = call->bufs->tokens;
  for (int64_t v = 0; v < call->dims->cleared; v++) memset(dwte + v * C + from, 0, (to - from) * sizeof(float));
  for (int64_t t = 0; t < call->dims->S; t++) memset(dwpe + t * C + from, 0, (to - from) * sizeof(float));
  for (int64_t i = 0; i < call->dims->B * T; i++)
    for (int64_t j = from; j < to; j++) {
      dwte[tokens[i] * C + j] += scale * dx[i * C + j];
      dwpe[i % T * C + j] += scale * dx[i * C + j];
    }
}

// Gradients dwte (V, C) and dwpe (S, C) of `embedding` at positions 0 to T - 1, from dx (B, T, C). Where dwte holds the
// gradient of a tied head, none of its rows are cleared, and this one is added.
void embedding_bwd(const void *arg) {
  const EmbeddingBwd *call = arg;
  parallel(div_up(call->dims->C, TABLE_COLS), embedding_bwd_item, call);
}
