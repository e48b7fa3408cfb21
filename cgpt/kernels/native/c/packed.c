#include "common.h"

// ---- our own engine of matrix products: both operands are copied once into panels, which all threads read ----
//
// A number of c is the sum over k in steps of at most DEPTH_BLOCK, each from its first to its last: the shape of b decides
// the bits of a row, whatever other rows there are and whoever computes it.

#if defined __AVX512F__
enum { VECTOR = 16, PANEL_ROWS = 14 };  // PANEL_ROWS x 2 vectors of sums stay in registers, beside 2 of b and 1 of a
#define WIDE __attribute__((min_vector_width(512)))  // else clang cuts them in two for some of these processors
#elif defined __AVX__
enum { VECTOR = 8, PANEL_ROWS = 6 };
#else
enum { VECTOR = 4, PANEL_ROWS = 6 };
#endif
#ifndef WIDE
#define WIDE
#endif
enum {
  PANEL_COLS = 2 * VECTOR,
  DEPTH_BLOCK = 256,  // PANEL_COLS x DEPTH_BLOCK of b stay in the first cache
  ITEM_ROWS = 96 / PANEL_ROWS * PANEL_ROWS, ITEM_COLS = 256,  // ITEM_ROWS x DEPTH_BLOCK of a stay in the second
  PART_ROWS = 22 * ITEM_ROWS, PART_COLS = 8 * ITEM_COLS,  // at once in packed form
  EIGHT = 8, SPILL = 16  // EIGHT numbers are written where fewer belong: the last ones into SPILL behind a panel
};
typedef float Vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4)));
typedef float Eight __attribute__((vector_size(EIGHT * sizeof(float)), aligned(4)));

// A part of a product, of which `depth` rows of b, and as many columns of a, are packed at a time.
typedef struct {
  const Gemm *g;
  int64_t all_rows;                   // of c, those of all groups
  int64_t row, col, k;                // where it begins
  int64_t rows, cols, depth;          // and its size
  float *a, *b;                       // panels (depth, PANEL_ROWS) and (depth, PANEL_COLS)
} Part;

static int64_t panel_size(int64_t width, int64_t depth) { return width * depth + SPILL; }

// to (8, width) = the transpose of 8 numbers of each of `rows` rows of x, the last one again where they are fewer than 8.
static inline __attribute__((always_inline)) void transpose(const float *x, int64_t ld, int rows, float *to, int width) {
  Eight in[EIGHT], pairs[EIGHT], fours[EIGHT];
  for (int i = 0; i < EIGHT; i++) in[i] = *(const Eight *)(x + (i < rows ? i : rows - 1) * ld);
  for (int i = 0; i < EIGHT; i += 2) {
    pairs[i] = __builtin_shufflevector(in[i], in[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(in[i], in[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < EIGHT; i++) {
    Eight one = pairs[i / 4 * 4 + i % 4 / 2], two = pairs[i / 4 * 4 + i % 4 / 2 + 2];
    fours[i] = i % 2 ? __builtin_shufflevector(one, two, 2, 3, 10, 11, 6, 7, 14, 15)
                     : __builtin_shufflevector(one, two, 0, 1, 8, 9, 4, 5, 12, 13);
  }
  for (int i = 0; i < 4; i++)
    *(Eight *)(to + i * width) = __builtin_shufflevector(fours[i], fours[4 + i], 0, 1, 2, 3, 8, 9, 10, 11);
  for (int i = 0; i < 4; i++)
    *(Eight *)(to + (4 + i) * width) = __builtin_shufflevector(fours[i], fours[4 + i], 4, 5, 6, 7, 12, 13, 14, 15);
}

// Panels (depth, width) of n rows of x, in which k runs along a row; what fills no panel is 0.
static inline __attribute__((always_inline)) void pack_rows(const float *x, int64_t ld, int64_t depth, int64_t n, int width,
                                                            float *to) {
  for (; n > 0; n -= width, x += width * ld, to += panel_size(width, depth)) {
    int64_t k = 0;
    for (; n >= width && k + EIGHT <= depth; k += EIGHT)
      for (int q = (width - 1) / EIGHT * EIGHT; q >= 0; q -= EIGHT)  // the first ones last: they lie where others spill
        transpose(x + q * ld + k, ld, width - q < EIGHT ? width - q : EIGHT, to + k * width + q, width);
    for (; k < depth; k++)
      for (int i = 0; i < width; i++) to[k * width + i] = i < n ? x[i * ld + k] : 0.0f;
  }
}

// Panels (depth, width) of n columns of x, in which k runs down a column; what fills no panel is 0.
static inline __attribute__((always_inline)) void pack_columns(const float *x, int64_t ld, int64_t depth, int64_t n,
                                                               int width, float *to) {
  for (int64_t k = 0; k < depth; k++, x += ld)
    for (int64_t from = 0; from < n; from += width) {
      float *row = to + from / width * panel_size(width, depth) + k * width;
      if (from + (width + EIGHT - 1) / EIGHT * EIGHT <= n)
        for (int i = 0; i < width; i += EIGHT) *(Eight *)(row + i) = *(const Eight *)(x + from + i);
      else
        for (int i = 0; i < width; i++) row[i] = from + i < n ? x[from + i] : 0.0f;
    }
}

// Pack ITEM_ROWS of a, or ITEM_COLS of b.
static void pack_operands_item(int64_t item, int, const void *arg) {
  const Part *p = arg;
  const Gemm *g = p->g;
  double start = gemm_timed() ? now_s() : 0.0;
  int64_t of_a = div_up(p->rows, ITEM_ROWS), lda = g->a_transposed ? g->m : g->k, ldb = g->b_transposed ? g->k : g->n;
  if (item < of_a) {
    int64_t from = item * ITEM_ROWS, n = min64(ITEM_ROWS, p->rows - from), row = p->row + from;
    float *to = p->a + from / PANEL_ROWS * panel_size(PANEL_ROWS, p->depth);
    if (g->a_transposed) pack_columns(g->a + p->k * lda + row, lda, p->depth, n, PANEL_ROWS, to);
    else pack_rows(g->a + row * lda + p->k, lda, p->depth, n, PANEL_ROWS, to);
  } else {
    int64_t from = (item - of_a) * ITEM_COLS, n = min64(ITEM_COLS, p->cols - from), col = p->col + from;
    float *to = p->b + from / PANEL_COLS * panel_size(PANEL_COLS, p->depth);
    if (g->b_transposed) pack_rows(g->b + col * ldb + p->k, ldb, p->depth, n, PANEL_COLS, to);
    else pack_columns(g->b + p->k * ldb + col, ldb, p->depth, n, PANEL_COLS, to);
  }
  if (gemm_timed()) count_gemm(start);
}

// c (PANEL_ROWS, PANEL_COLS) = the product of two panels, or c plus it.
static inline __attribute__((always_inline)) WIDE void multiply_panels(const float *a, const float *b, int64_t depth, float *c,
                                                                  int64_t ldc, int add) {
#pragma clang fp reassociate(off)
  Vector sum[PANEL_ROWS][2];
#pragma clang loop unroll(full)
  for (int r = 0; r < PANEL_ROWS; r++) {
    __builtin_prefetch(c + r * ldc, 1), __builtin_prefetch(c + r * ldc + PANEL_COLS - 1, 1);
    sum[r][0] = sum[r][1] = (Vector){0};
  }
#pragma clang loop unroll_count(4)
  for (int64_t k = 0; k < depth; k++, a += PANEL_ROWS, b += PANEL_COLS) {
    Vector left = *(const Vector *)b, right = *(const Vector *)(b + VECTOR);
#pragma clang loop unroll(full)
    for (int r = 0; r < PANEL_ROWS; r++) sum[r][0] += left * a[r], sum[r][1] += right * a[r];
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < PANEL_ROWS; r++, c += ldc) {
    Vector *left = (Vector *)c, *right = (Vector *)(c + VECTOR);
    *left = add ? *left + sum[r][0] : sum[r][0], *right = add ? *right + sum[r][1] : sum[r][1];
  }
}

// The same where c has fewer rows or columns.
WIDE static void multiply_at_the_edge(const float *a, const float *b, int64_t depth, float *c, int64_t ldc, int add, int64_t rows,
                                 int64_t cols) {
  float whole[PANEL_ROWS * PANEL_COLS];
  multiply_panels(a, b, depth, whole, PANEL_COLS, 0);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      float product = whole[i * PANEL_COLS + j];
      c[i * ldc + j] = add ? c[i * ldc + j] + product : product;
    }
}

// ITEM_ROWS x ITEM_COLS of c, for this part's depth; after the last the bias and the activation.
WIDE static void multiply_packed_item(int64_t item, int, const void *arg) {
  const Part *p = arg;
  const Gemm *g = p->g;
  double start = gemm_timed() ? now_s() : 0.0;
  int64_t n_down = div_up(p->rows, ITEM_ROWS), row = item % n_down * ITEM_ROWS, col = item / n_down * ITEM_COLS;
  int64_t rows = min64(ITEM_ROWS, p->rows - row), cols = min64(ITEM_COLS, p->cols - col), depth = p->depth;
  int add = p->k > 0 || g->beta != 0.0f;
  float *c = g->c + (p->row + row) * g->n + p->col + col;
  const float *a = p->a + row / PANEL_ROWS * panel_size(PANEL_ROWS, depth);
  const float *b = p->b + col / PANEL_COLS * panel_size(PANEL_COLS, depth);
  for (int64_t j = 0; j < cols; j += PANEL_COLS, b += panel_size(PANEL_COLS, depth)) {
    const float *panel = a;
    for (int64_t i = 0; i < rows; i += PANEL_ROWS, panel += panel_size(PANEL_ROWS, depth)) {
      float *to = c + i * g->n + j;
      if (rows - i >= PANEL_ROWS && cols - j >= PANEL_COLS) multiply_panels(panel, b, depth, to, g->n, add);
      else multiply_at_the_edge(panel, b, depth, to, g->n, add, min64(PANEL_ROWS, rows - i), min64(PANEL_COLS, cols - j));
    }
  }
  if (gemm_timed()) count_gemm(start);
  if (p->k + depth == g->k) add_bias(g, c, p->col + col, rows, cols);
}

// c = a b + beta c, then the bias and the activation. Groups are rows like others: none has a part in another's bits.
static void packed_gemm(const Gemm *g) {
  int64_t step = div_up(div_up(g->k, div_up(g->k, DEPTH_BLOCK)), EIGHT) * EIGHT;
  int64_t all_rows = g->m * g->n_groups, most_rows = min64(all_rows, PART_ROWS), most_cols = min64(g->n, PART_COLS);
  int64_t a_size = div_up(most_rows, PANEL_ROWS) * panel_size(PANEL_ROWS, step);
  int64_t b_size = div_up(most_cols, PANEL_COLS) * panel_size(PANEL_COLS, step);
  float *packed = scratch(5, a_size + SPILL + b_size);
  if (!packed) return;
  Part p = {.g = g, .a = packed, .b = packed + div_up(a_size, SPILL) * SPILL};
  for (p.k = 0; p.k < g->k; p.k += step)
    for (p.col = 0; p.col < g->n; p.col += PART_COLS)
      for (p.row = 0; p.row < all_rows; p.row += PART_ROWS) {
        p.depth = min64(step, g->k - p.k);
        p.rows = min64(PART_ROWS, all_rows - p.row), p.cols = min64(PART_COLS, g->n - p.col);
        int64_t n_down = div_up(p.rows, ITEM_ROWS), n_across = div_up(p.cols, ITEM_COLS);
        parallel(n_down + n_across, pack_operands_item, &p);
        parallel(n_down * n_across, multiply_packed_item, &p);
      }
}
