#include "common.h"

// ---- weights kept in 16 or 8 bits: they are rounded once, all else is float32 ----
//
// A rounded matrix is w (n_out, n_in), each row with a scale: as many numbers of an output lie side by side, and the
// outputs of an item one after the other. Which of them an item computes depends on the shape alone.

enum { PIECE = 16384, LARGE_PIECE = 65536, MANY_ROWS = 64 };  // weights of an item, of few rows of x and of many

typedef struct {
  const struct { float *y; const float *x; const void *w; const float *scales, *bias; } *bufs;
  const struct { int64_t rows, n_in, n_out, type, activation, has_bias; } *dims;
} LinearRounded;

// Outputs of an item, whole tiles.
static int64_t outputs_per_item(const LinearRounded *call) {
  return div_up(call->dims->rows < MANY_ROWS ? PIECE : LARGE_PIECE, call->dims->n_in * TILE) * TILE;
}

// Some outputs for all rows of x.
static void linear_rounded_item(int64_t item, int, const void *arg) {
  const LinearRounded *call = arg;
  int64_t n_out = call->dims->n_out, per_item = outputs_per_item(call), from = item * per_item;
  int64_t n = min64(per_item, n_out - from), activation = call->dims->activation;
  FewRows s = {.y = call->bufs->y, .x = call->bufs->x, .w = call->bufs->w, .scales = call->bufs->scales, .n_out = n_out,
               .bias = call->dims->has_bias ? call->bufs->bias : NULL, .rows = call->dims->rows,
               .n_in = call->dims->n_in};
  call->dims->type == INT8 ? in_blocks(dot_int8, &s, s.y, from, n) : in_blocks(dot_bfloat16, &s, s.y, from, n);
  for (int64_t row = 0; row < s.rows && activation != IDENTITY; row++)
    activate(activation, s.y + row * n_out + from, s.y + row * n_out + from, n);
}

// y (rows, n_out) = activation(x (rows, n_in) w^T + b (n_out)), each row on its own.
void linear_rounded(const void *arg) {
  const LinearRounded *call = arg;
  parallel(div_up(call->dims->n_out, outputs_per_item(call)), linear_rounded_item, call);
}

// Rows `from` to from + n - 1 of w as float32 (n, n_in).
static void restore_rows(const void *w, const float *scales, int64_t type, int64_t n_in, int64_t from, int64_t n,
                         float *restrict out) {
  for (int64_t v = from; v < from + n; v++, out += n_in)
    if (type == INT8)
      for (int64_t j = 0; j < n_in; j++) out[j] = load_weight(w, v * n_in + j, INT8) * scales[v];
    else
      for (int64_t j = 0; j < n_in; j++) out[j] = load_weight(w, v * n_in + j, BFLOAT16) * scales[v];
}

typedef struct {
  const struct { float *out; const void *w; const float *scales; } *bufs;
  const struct { int64_t n_in, n_out, type; } *dims;
} Restore;

static void restore_item(int64_t item, int, const void *arg) {
  const Restore *call = arg;
  int64_t n_in = call->dims->n_in, per_item = div_up(LARGE_PIECE, n_in), from = item * per_item;
  restore_rows(call->bufs->w, call->bufs->scales, call->dims->type, n_in, from,
               min64(per_item, call->dims->n_out - from), call->bufs->out + from * n_in);
}

// out (n_out, n_in) = w as float32.
void restore(const void *arg) {
  const Restore *call = arg;
  parallel(div_up(call->dims->n_out, div_up(LARGE_PIECE, call->dims->n_in)), restore_item, call);
}

// x (B, T, C) as `embedding` gives it, from rounded rows of tokens: w (V, C).
void embedding_rounded(const void *arg) {
  const struct {
    const struct {
      float *x;
      const int32_t *tokens;
      const void *w;
      const float *scales, *wpe;
      const int32_t *positions;
    } *bufs;
    const struct { int64_t B, T, C, type, has_positions; } *dims;
    const float *scale;
  } *call = arg;
  int64_t T = call->dims->T, C = call->dims->C;
  for (int64_t i = 0; i < call->dims->B * T; i++) {
    float *restrict x = call->bufs->x + i * C;
    const float *of_position = call->bufs->wpe + (call->dims->has_positions ? call->bufs->positions[i] : i % T) * C;
    restore_rows(call->bufs->w, call->bufs->scales, call->dims->type, C, call->bufs->tokens[i], 1, x);
    for (int64_t j = 0; j < C; j++) x[j] = (x[j] + of_position[j]) * *call->scale;
  }
}
