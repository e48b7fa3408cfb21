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

// Work on fewer numbers than this is done before another thread has woken up.
static void parallel_if_worth_it(int64_t n_numbers, int64_t n_items, item_fn fn, void *arg) {
  if (n_numbers >= WORTH_A_THREAD) return parallel(n_items, fn, arg);
  for (int64_t i = 0; i < n_items; i++) fn(i, 0, arg);
}

#define CASE(number, call) case number: { enum { rows = number }; call; break; }
// `call`, in which `rows` is the constant that `number`, from 1 to 6, is.
#define WITH_ROWS(number, call) \
  switch (number) { CASE(1, call) CASE(2, call) CASE(3, call) CASE(4, call) CASE(5, call) CASE(6, call) }

INLINED Lanes load(const float *from) { return *(const Lanes *)from; }

typedef struct {
  const float *x, *w, *bias;
  float *y, *partial;
  int64_t rows, n_in, n_out, per_item, n_items, activation;
} FewRows;

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

// The columns that fill no tile.
static void add_last_columns(const FewRows *s, const float *x, const float *w, float *y, int64_t depth, int64_t cols) {
#pragma clang fp reassociate(off)
  for (int64_t k = 0; k < depth; k++)
    for (int64_t j = 0; j < cols; j++) y[j] += w[k * s->n_out + j] * x[k];
}

INLINED void add_rows(const FewRows *s, const float *x, const float *w, float *y, int64_t depth, int rows) {
  int64_t col = 0;
  for (; col + TILE_COLS <= s->n_out; col += TILE_COLS) add_tile(s, x, w + col, y + col, depth, rows);
  for (int r = 0; r < rows; r++)
    add_last_columns(s, x + r * s->n_in, w + col, y + r * s->n_out + col, depth, s->n_out - col);
}

// x w over some rows of w, which lie one after the other in memory.
static void partial_product_item(int64_t item, int thread, void *arg) {
  const FewRows *s = arg;
  (void)thread;
  int64_t from = item * s->per_item, to = min64(from + s->per_item, s->n_in);
  float *partial = s->partial + item * s->rows * s->n_out;
  memset(partial, 0, s->rows * s->n_out * sizeof(float));
  for (int64_t k = from; k < to; k += DEPTH)
    for (int64_t row = 0; row < s->rows; row += ROW_BLOCK) {
      const float *x = s->x + row * s->n_in + k, *w = s->w + k * s->n_out;
      float *y = partial + row * s->n_out;
      int64_t depth = min64(DEPTH, to - k);
      WITH_ROWS(min64(ROW_BLOCK, s->rows - row), add_rows(s, x, w, y, depth, rows));
    }
}

static void sum_partials_item(int64_t item, int thread, void *arg) {
  const FewRows *s = arg;
  (void)thread;
  int64_t row = item % s->rows, from = item / s->rows * SUM_COLS, cols = min64(SUM_COLS, s->n_out - from);
  float *restrict y = s->y + row * s->n_out + from;
  memcpy(y, s->bias + from, cols * sizeof(float));
  for (int64_t i = 0; i < s->n_items; i++) {
    const float *restrict partial = s->partial + (i * s->rows + row) * s->n_out + from;
    for (int64_t j = 0; j < cols; j++) y[j] += partial[j];
  }
  if (s->activation != IDENTITY) activate(s->activation, y, y, cols);
}

// y = x w + b, then an activation. dims: rows, n_in, n_out, activation. bufs: y, x, w (n_in, n_out), b
void linear_few_rows(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  int64_t enough = div_up(WORTH_A_THREAD, d[2]), sixteenth = div_up(d[1], 16);
  int64_t per_item = div_up(enough > sixteenth ? enough : sixteenth, DEPTH) * DEPTH, n_items = div_up(d[1], per_item);
  FewRows s = {.y = bufs[0], .x = bufs[1], .w = bufs[2], .bias = bufs[3], .partial = scratch(0, n_items * d[0] * d[2]),
               .rows = d[0], .n_in = d[1], .n_out = d[2], .activation = d[3], .per_item = per_item, .n_items = n_items};
  if (!s.partial) return;
  parallel(n_items, partial_product_item, &s);
  parallel_if_worth_it(n_items * d[0] * d[2], d[0] * div_up(d[2], SUM_COLS), sum_partials_item, &s);
}

INLINED float sum_of(Lanes v) {
#pragma clang fp reassociate(off)
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
}

// Logits of `words` words: their rows of w, side by side, with `rows` rows of x.
INLINED void dot_rows(const FewRows *s, const float *x, const float *w, float *y, int rows, int words) {
#pragma clang fp reassociate(off)
  Lanes sum[ROW_BLOCK][TILE] = {0};
  int64_t j = 0;
  for (; j + LANES <= s->n_in; j += LANES) {
    Lanes weight[TILE];
    for (int v = 0; v < words; v++) {
      __builtin_prefetch(w + (v + TILE) * s->n_in + j);
      weight[v] = load(w + v * s->n_in + j);
    }
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < words; v++) sum[r][v] += weight[v] * load(x + r * s->n_in + j);
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < words; v++) {
      float total = sum_of(sum[r][v]);
      for (int64_t i = j; i < s->n_in; i++) total += w[v * s->n_in + i] * x[r * s->n_in + i];
      y[r * s->n_out + v] = total;
    }
}

INLINED void dot_words(const FewRows *s, const float *x, float *y, int64_t from, int64_t to, int rows) {
  int64_t v = from;
  for (; v + TILE <= to; v += TILE) dot_rows(s, x, s->w + v * s->n_in, y + v, rows, TILE);
  for (; v < to; v++) dot_rows(s, x, s->w + v * s->n_in, y + v, rows, 1);
}

static void logits_item(int64_t item, int thread, void *arg) {
  const FewRows *s = arg;
  (void)thread;
  int64_t from = item * s->per_item, to = min64(from + s->per_item, s->n_out);
  for (int64_t row = 0; row < s->rows; row += ROW_BLOCK) {
    const float *x = s->x + row * s->n_in;
    float *y = s->y + row * s->n_out;
    WITH_ROWS(min64(ROW_BLOCK, s->rows - row), dot_words(s, x, y, from, to, rows));
  }
}

// logits = x w^T. dims: rows, d_model, vocab. bufs: logits, x, w (vocab, d_model)
void logits_few_rows(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  FewRows s = {.y = bufs[0], .x = bufs[1], .w = bufs[2], .rows = d[0], .n_in = d[1], .n_out = d[2],
               .per_item = div_up(65536, d[1] * TILE) * TILE};
  parallel(div_up(d[2], s.per_item), logits_item, &s);
}

// ---- the cache of keys and values (2, B, H, S, D) of one layer ----

// (wte[token] + wpe[position]) * scale. dims: B, d_model. consts: scale. bufs: x, tokens (B), positions (B), wte, wpe
void embedding_at(void **bufs, const int64_t *d, const float *c) {
  float *x = bufs[0], *wte = bufs[3], *wpe = bufs[4], scale = c[0];
  const int32_t *tokens = bufs[1], *positions = bufs[2];
  for (int64_t i = 0; i < d[0]; i++)
    for (int64_t j = 0; j < d[1]; j++) x[i * d[1] + j] = (wte[tokens[i] * d[1] + j] + wpe[positions[i] * d[1] + j]) * scale;
}

typedef struct {
  float *out, *cache, *work;
  const float *qkv;
  const int32_t *positions, *slots;
  int64_t T, B, S, H, D;
  float scale;
} Cached;

// A head's entry of the cache: `which` is 0 for the key, 1 for the value.
INLINED float *entry(const Cached *s, int which, int64_t b, int64_t h, int64_t t) {
  return s->cache + (((which * s->B + b) * s->H + h) * s->S + t) * s->D;
}

// Keep keys and values of a prompt's tokens. dims: T, B, S, H, D. bufs: cache, qkv (1, T, 3 C), row (1) of the cache
void store_prompt(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  Cached s = {.cache = bufs[0], .qkv = bufs[1], .T = d[0], .B = d[1], .S = d[2], .H = d[3], .D = d[4]};
  int64_t row = *(const int32_t *)bufs[2], width = s.H * s.D;
  for (int which = 0; which < 2; which++)
    for (int64_t h = 0; h < s.H; h++)
      for (int64_t t = 0; t < s.T; t++)
        memcpy(entry(&s, which, row, h, t), s.qkv + (3 * t + which + 1) * width + h * s.D, s.D * sizeof(float));
}

static void cached_attention_item(int64_t item, int thread, void *arg) {
  const Cached *s = arg;
  int64_t h = item % s->H, b = item / s->H, width = s->H * s->D, n = s->positions[b] + 1;
  const float *q = s->qkv + b * 3 * width + h * s->D;
  const int32_t *slots = s->slots + b * s->S;
  float *score = s->work + thread * s->S, *restrict out = s->out + b * width + h * s->D, top = -INFINITY, sum = 0.0f;
  for (int which = 0; which < 2; which++)
    memcpy(entry(s, which, b, h, n - 1), q + (which + 1) * width, s->D * sizeof(float));
  for (int64_t t = 0; t < n; t++) {
    const float *k = entry(s, 0, slots[t], h, t);
    float dot = 0.0f;
    for (int64_t j = 0; j < s->D; j++) dot += q[j] * k[j];
    score[t] = dot * s->scale;
    top = score[t] > top ? score[t] : top;
  }
  for (int64_t t = 0; t < n; t++) sum += score[t] = fast_exp(score[t] - top);
  memset(out, 0, s->D * sizeof(float));
  for (int64_t t = 0; t < n; t++) {
    const float *v = entry(s, 1, slots[t], h, t), p = score[t] / sum;
    for (int64_t j = 0; j < s->D; j++) out[j] += p * v[j];
  }
}

// One new token per sequence: its key and value go into row b, place positions[b] of the cache, and its query meets all
// tokens up to itself, of which token t is in row slots[b, t]. dims: B, S, H, D. consts: scale.
// bufs: out, cache, qkv (B, 1, 3 C), positions (B), slots (B, S)
void cached_attention(void **bufs, const int64_t *d, const float *c) {
  Cached s = {.out = bufs[0], .cache = bufs[1], .qkv = bufs[2], .positions = bufs[3], .slots = bufs[4], .B = d[0],
              .S = d[1], .H = d[2], .D = d[3], .scale = c[0], .work = scratch(0, pool.n_threads * d[1])};
  if (!s.work) return;
  int64_t n_seen = 0;
  for (int64_t b = 0; b < s.B; b++) n_seen += s.positions[b] + 1;
  parallel_if_worth_it(2 * n_seen * s.H * s.D, s.B * s.H, cached_attention_item, &s);
}
