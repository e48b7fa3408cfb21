#include "common.h"

// ---- one new token per sequence: products of few rows, which read each weight once, at the speed of memory ----
//
// Every row is summed in an order that the shape of the weights decides, so its bits depend on no other row.

#ifdef __AVX512F__
enum { LANES = 16, ROW_BLOCK = 6, TILE = 4 };  // ROW_BLOCK x TILE sums stay in registers
#else
enum { LANES = 8, ROW_BLOCK = 3, TILE = 4 };
#endif
enum { DEPTH = 8, TILE_COLS = TILE * LANES, SUM_COLS = 1024, WORTH_A_THREAD = 16384 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
#define INLINED static inline __attribute__((always_inline))  // so that its counts of rows become constants

// As `parallel`, but on one thread where so few numbers are worked on that they are done before another has woken up.
static void parallel_if_worth_it(int64_t n_numbers, int64_t n_items, item_fn fn, const void *arg) {
  if (n_numbers >= WORTH_A_THREAD) return parallel(n_items, fn, arg);
  for (int64_t i = 0; i < n_items; i++) fn(i, 0, arg);
}

INLINED Lanes load(const float *from) { return *(const Lanes *)from; }

enum { FLOAT32, BFLOAT16, INT8, CACHE_LINE = 64 };  // types of weights, as numbered in native/ops.py
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t)), aligned(2)));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

INLINED int64_t bytes_of(int type) { return type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1; }

// Weights i to i + LANES - 1, before their scale.
INLINED Lanes load_weights(const void *w, int64_t i, int type) {
  if (type == FLOAT32) return load((const float *)w + i);
  if (type == INT8) return __builtin_convertvector(*(const Bytes *)((const int8_t *)w + i), Lanes);
  return (Lanes)(__builtin_convertvector(*(const Halves *)((const uint16_t *)w + i), Words) << 16);
}

INLINED float load_weight(const void *w, int64_t i, int type) {
  if (type == FLOAT32) return ((const float *)w)[i];
  if (type == INT8) return ((const int8_t *)w)[i];
  union { uint32_t bits; float value; } half = {.bits = (uint32_t)((const uint16_t *)w)[i] << 16};
  return half.value;
}

typedef struct {
  const float *x, *bias, *scales;  // scales (n_out) of rounded weights
  const void *w;                   // (n_in, n_out) of a linear layer, (n_out, n_in) of the head and of rounded weights
  float *y, *partial;              // partial: of each item (rows, n_out), what its rows of w add to y
  int64_t rows, n_in, n_out, per_item, n_items, activation;
} FewRows;

typedef void (*block_fn)(const FewRows *s, const float *x, float *y, int64_t from, int64_t n, int rows);

// Call `block` for the rows of x and y, ROW_BLOCK at a time: each count of rows is a constant that it is compiled for.
INLINED void in_blocks(block_fn block, const FewRows *s, float *y, int64_t from, int64_t n) {
  const float *x = s->x;
  for (int64_t left = s->rows; left > 0; left -= ROW_BLOCK, x += ROW_BLOCK * s->n_in, y += ROW_BLOCK * s->n_out)
    switch (min64(ROW_BLOCK, left)) {
      case 1: block(s, x, y, from, n, 1); break;
      case 2: block(s, x, y, from, n, 2); break;
      case 3: block(s, x, y, from, n, 3); break;
      case 4: block(s, x, y, from, n, 4); break;
      case 5: block(s, x, y, from, n, 5); break;
      case 6: block(s, x, y, from, n, 6);
    }
}

// y += x w for a tile of columns and `depth` rows of w, while the same columns of the next rows are fetched.
INLINED void add_tile(const FewRows *s, const float *x, const float *w, float *y, int64_t depth, int rows) {
#pragma clang fp reassociate(off)
  Lanes sum[ROW_BLOCK][TILE];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < TILE; v++) sum[r][v] = load(y + r * s->n_out + v * LANES);
  for (int64_t k = 0; k < depth; k++, w += s->n_out) {
    Lanes weight[TILE];
    for (int v = 0; v < TILE; v++) {
      __builtin_prefetch(w + DEPTH * s->n_out + v * LANES);
      weight[v] = load(w + v * LANES);
    }
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < TILE; v++) sum[r][v] += weight[v] * x[r * s->n_in + k];
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < TILE; v++) *(Lanes *)(y + r * s->n_out + v * LANES) = sum[r][v];
}

// The same for the columns that fill no tile.
static void add_last_columns(const FewRows *s, const float *x, const float *w, float *y, int64_t depth, int64_t cols) {
#pragma clang fp reassociate(off)
  for (int64_t k = 0; k < depth; k++)
    for (int64_t j = 0; j < cols; j++) y[j] += w[k * s->n_out + j] * x[k];
}

// y (rows, n_out) += x w over `depth` rows of w.
INLINED void add_rows(const FewRows *s, const float *x, float *y, int64_t from, int64_t depth, int rows) {
  const float *w = (const float *)s->w + from * s->n_out;
  int64_t col = 0;
  x += from;
  for (; col + TILE_COLS <= s->n_out; col += TILE_COLS) add_tile(s, x, w + col, y + col, depth, rows);
  for (int r = 0; r < rows; r++)
    add_last_columns(s, x + r * s->n_in, w + col, y + r * s->n_out + col, depth, s->n_out - col);
}

// x w over some rows of w, which lie one after the other in memory.
static void partial_product_item(int64_t item, int, const void *arg) {
  const FewRows *s = arg;
  int64_t from = item * s->per_item, to = min64(from + s->per_item, s->n_in);
  float *partial = s->partial + item * s->rows * s->n_out;
  memset(partial, 0, s->rows * s->n_out * sizeof(float));
  for (int64_t k = from; k < to; k += DEPTH) in_blocks(add_rows, s, partial, k, min64(DEPTH, to - k));
}

// Some columns of a row of y: the bias, then what each item adds, in their order, and the activation.
static void sum_partials_item(int64_t item, int, const void *arg) {
  const FewRows *s = arg;
  int64_t row = item % s->rows, from = item / s->rows * SUM_COLS, cols = min64(SUM_COLS, s->n_out - from);
  float *restrict y = s->y + row * s->n_out + from;
  memcpy(y, s->bias + from, cols * sizeof(float));
  for (int64_t i = 0; i < s->n_items; i++) {
    const float *restrict partial = s->partial + (i * s->rows + row) * s->n_out + from;
    for (int64_t j = 0; j < cols; j++) y[j] += partial[j];
  }
  if (s->activation != IDENTITY) activate(s->activation, y, y, cols);
}

// y (rows, n_out) = activation(x (rows, n_in) w + b (n_out)).
void linear_few_rows(const void *arg) {
  const struct {
    const struct { float *y; const float *x, *w, *bias; } *bufs;
    const struct { int64_t rows, n_in, n_out, activation; } *dims;
  } *call = arg;
  int64_t rows = call->dims->rows, n_in = call->dims->n_in, n_out = call->dims->n_out;
  int64_t enough = div_up(WORTH_A_THREAD, n_out), sixteenth = div_up(n_in, 16);
  int64_t per_item = div_up(enough > sixteenth ? enough : sixteenth, DEPTH) * DEPTH, n_items = div_up(n_in, per_item);
  FewRows s = {.y = call->bufs->y, .x = call->bufs->x, .w = call->bufs->w, .bias = call->bufs->bias, .rows = rows,
               .n_in = n_in, .n_out = n_out, .activation = call->dims->activation, .per_item = per_item,
               .n_items = n_items, .partial = scratch(0, n_items * rows * n_out)};
  if (!s.partial) return;
  parallel(n_items, partial_product_item, &s);
  parallel_if_worth_it(n_items * rows * n_out, rows * div_up(n_out, SUM_COLS), sum_partials_item, &s);
}

// The sum of a vector's numbers, halves on halves.
INLINED float sum_of(Lanes v) {
#pragma clang fp reassociate(off)
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
}

// Outputs `first` to first + words - 1: their rows of w, side by side, with `rows` rows of x, while the rows of w after
// them are fetched.
INLINED void dot_rows(const FewRows *s, const float *x, float *y, int64_t first, int rows, int words, int type) {
#pragma clang fp reassociate(off)
  const char *w = (const char *)s->w + first * s->n_in * bytes_of(type), *next = w + TILE * s->n_in * bytes_of(type);
  Lanes sum[ROW_BLOCK][TILE] = {0};
  int64_t j = 0;
  for (; j + LANES <= s->n_in; j += LANES) {
    Lanes weight[TILE];
    for (int64_t line = 0; line < TILE * LANES * bytes_of(type); line += CACHE_LINE)
      __builtin_prefetch(next + TILE * j * bytes_of(type) + line);
    for (int v = 0; v < words; v++) weight[v] = load_weights(w, v * s->n_in + j, type);
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < words; v++) sum[r][v] += weight[v] * load(x + r * s->n_in + j);
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < words; v++) {
      float total = sum_of(sum[r][v]);
      for (int64_t i = j; i < s->n_in; i++) total += load_weight(w, v * s->n_in + i, type) * x[r * s->n_in + i];
      if (s->scales) total *= s->scales[first + v];
      y[r * s->n_out + first + v] = s->bias ? total + s->bias[first + v] : total;
    }
}

// n outputs from the row `from` of w on, for `rows` rows of x.
INLINED void dot_words(const FewRows *s, const float *x, float *y, int64_t from, int64_t n, int rows, int type) {
  int64_t v = from, to = from + n;
  for (; v + TILE <= to; v += TILE) dot_rows(s, x, y, v, rows, TILE, type);
  for (; v < to; v++) dot_rows(s, x, y, v, rows, 1, type);
}

INLINED void dot_float32(const FewRows *s, const float *x, float *y, int64_t from, int64_t n, int rows) {
  dot_words(s, x, y, from, n, rows, FLOAT32);
}
INLINED void dot_bfloat16(const FewRows *s, const float *x, float *y, int64_t from, int64_t n, int rows) {
  dot_words(s, x, y, from, n, rows, BFLOAT16);
}
INLINED void dot_int8(const FewRows *s, const float *x, float *y, int64_t from, int64_t n, int rows) {
  dot_words(s, x, y, from, n, rows, INT8);
}

// Logits of some words for all rows.
static void logits_item(int64_t item, int, const void *arg) {
  const FewRows *s = arg;
  int64_t from = item * s->per_item;
  in_blocks(dot_float32, s, s->y, from, min64(s->per_item, s->n_out - from));
}

// logits (rows, V) = x (rows, C) w^T, w (V, C).
void logits_few_rows(const void *arg) {
  const struct {
    const struct { float *logits; const float *x, *w; } *bufs;
    const struct { int64_t rows, C, V; } *dims;
  } *call = arg;
  int64_t C = call->dims->C, V = call->dims->V, per_item = div_up(65536, C * TILE) * TILE;
  FewRows s = {.y = call->bufs->logits, .x = call->bufs->x, .w = call->bufs->w, .rows = call->dims->rows, .n_in = C,
               .n_out = V, .per_item = per_item};
  parallel(div_up(V, per_item), logits_item, &s);
}

// ---- the cache of keys and values (2, B, H, S, D) of one layer ----

typedef struct { int64_t B, S, H, D, T; } CacheDims;  // T: of a prompt

typedef struct {
  const struct { float *out, *cache; const float *qkv; const int32_t *positions, *slots; } *bufs;
  const CacheDims *dims;
  const float *scale;
} CachedAttention;

// A head's entry (D) of the cache: `which` is 0 for the key, 1 for the value.
INLINED float *entry(const CacheDims *d, float *cache, int which, int64_t b, int64_t h, int64_t t) {
  return cache + (((which * d->B + b) * d->H + h) * d->S + t) * d->D;
}

// Keep keys and values of a prompt's T tokens in a row of the cache.
void store_prompt(const void *arg) {
  const struct {
    const struct { float *cache; const float *qkv; const int32_t *row; } *bufs;
    const CacheDims *dims;
  } *call = arg;
  const CacheDims *d = call->dims;
  int64_t D = d->D, C = d->H * D;
  for (int which = 0; which < 2; which++)
    for (int64_t h = 0; h < d->H; h++)
      for (int64_t t = 0; t < d->T; t++)
        memcpy(entry(d, call->bufs->cache, which, *call->bufs->row, h, t),
               call->bufs->qkv + (3 * t + which + 1) * C + h * D, D * sizeof(float));
}

// One head of one sequence: its key and value are kept, then its columns of out computed.
static void cached_attention_item(int64_t item, int thread, const void *arg) {
  const CachedAttention *call = arg;
  const CacheDims *d = call->dims;
  int64_t H = d->H, D = d->D, h = item % H, b = item / H, C = H * D, n = call->bufs->positions[b] + 1;
  const float *q = call->bufs->qkv + b * 3 * C + h * D, scale = *call->scale;
  const int32_t *slots = call->bufs->slots + b * d->S;
  float *score = thread_scratch(thread, d->S), *cache = call->bufs->cache;
  float *restrict out = call->bufs->out + b * C + h * D, top = -INFINITY, sum = 0.0f;
  for (int which = 0; which < 2; which++)
    memcpy(entry(d, cache, which, b, h, n - 1), q + (which + 1) * C, D * sizeof(float));
  for (int64_t t = 0; t < n; t++) {
    const float *k = entry(d, cache, 0, slots[t], h, t);
    float dot = 0.0f;
    for (int64_t j = 0; j < D; j += CACHE_LINE / 4) __builtin_prefetch(entry(d, cache, 1, slots[t], h, t) + j);
    for (int64_t j = 0; j < D; j++) dot += q[j] * k[j];
    score[t] = dot * scale;
    top = score[t] > top ? score[t] : top;
  }
  for (int64_t t = 0; t < n; t++) sum += score[t] = fast_exp(score[t] - top);
  memset(out, 0, D * sizeof(float));
  for (int64_t t = 0; t < n; t++) {
    const float *v = entry(d, cache, 1, slots[t], h, t), p = score[t] / sum;
    for (int64_t j = 0; j < D; j++) out[j] += p * v[j];
  }
}

// out (B, 1, C): one new token per sequence, whose key and value go into row b, place positions[b] of the cache, and
// whose query meets all tokens up to itself, of which token t is in row slots[b, t].
void cached_attention(const void *arg) {
  const CachedAttention *call = arg;
  const CacheDims *d = call->dims;
  if (!reserve(d->S)) return;
  int64_t n_seen = 0;
  for (int64_t b = 0; b < d->B; b++) n_seen += call->bufs->positions[b] + 1;
  parallel_if_worth_it(2 * n_seen * d->H * d->D, d->B * d->H, cached_attention_item, call);
}
