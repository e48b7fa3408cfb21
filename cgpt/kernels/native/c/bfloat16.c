#include "common.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// ---- products of matrices in bfloat16: both operands are rounded to it, sums are float32 ----
//
// With instructions for them, an operand is packed into tiles, in parallel, and then all threads multiply blocks of
// tiles. Each number of c is a sum over k in one order, whatever the other rows are, so groups need not be kept apart.
// Without, operands are rounded and multiplied as in float32.

enum { TILE_SIDE = 16, TILE_DEPTH = 32, TILE_NUMBERS = TILE_SIDE * TILE_DEPTH, PANEL = 2 * TILE_SIDE };

enum { ROUNDING, AVX512, AMX };  // as numbered in native/bfloat16.py
int bfloat16_by;                 // the instructions in use

// Take the best instructions that this code was compiled with and the system grants, and say which; AVX-512's are taken
// where they are `worth` it: some processors are no faster with them than in float32.
int take_bfloat16(int worth) {
  bfloat16_by = ROUNDING;
#ifdef __AVX512BF16__
  if (worth) bfloat16_by = AVX512;
#endif
#if defined __AMX_BF16__ && defined __linux__
  enum { REQUEST = 0x1023, TILES = 18 };  // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of Linux 5.16
  if (!syscall(SYS_arch_prctl, REQUEST, TILES)) bfloat16_by = AMX;
#endif
  (void)worth;
  return bfloat16_by;
}

enum { BLOCK = 128, STEPS_AT_ONCE = 16, PACKED_AT_ONCE = 16, ROUND_NUMBERS = 16384 };

// A matrix as an operand: `n` rows of a, or columns of b, of `depth` numbers that are summed over.
typedef struct {
  const float *from;
  int64_t n, depth;
  int along_depth;  // whether the numbers of a row, or column, lie one after the other: (n, depth) in memory
  int is_b;
  void *to;
} Operand;

static Operand operand_a(const Gemm *g) {
  int64_t groups = g->n_groups ? g->n_groups : 1;
  return (Operand){.from = g->a, .n = groups * g->m, .depth = g->k, .along_depth = !g->a_transposed};
}

static Operand operand_b(const Gemm *g) {
  return (Operand){.from = g->b, .n = g->n, .depth = g->k, .along_depth = g->b_transposed, .is_b = 1};
}

// ---- without instructions: operands rounded to bfloat16 ----

static float rounded(float x) {  // to the nearest, ties to even; NaN and infinity stay
  union { float f; uint32_t i; } bits = {.f = x};
  if ((bits.i & 0x7f800000u) != 0x7f800000u) bits.i = (bits.i + 0x7fffu + (bits.i >> 16 & 1)) & 0xffff0000u;
  return bits.f;
}

// Some of an operand's numbers, rounded, in the order in which they lie.
static void round_item(int64_t item, int, const void *arg) {
  const Operand *o = arg;
  int64_t from = item * ROUND_NUMBERS, to = min64(from + ROUND_NUMBERS, o->n * o->depth);
  float *restrict out = o->to;
  for (int64_t i = from; i < to; i++) out[i] = rounded(o->from[i]);
}

static int64_t panels(const Operand *o) { return div_up(o->n, PANEL); }
static int64_t tiles_deep(const Operand *o) { return div_up(o->depth, TILE_DEPTH); }

// Memory that `pack` fills.
static int64_t packed_floats(Operand o) {
  if (bfloat16_by == ROUNDING) return o.n * o.depth;
  return panels(&o) * tiles_deep(&o) * TILE_NUMBERS;  // two tiles of two bytes a number
}

#ifdef __AVX512BF16__

// ---- tiles: of a [16 rows][32 deep], of b [16 pairs deep][16 columns][2] ----
//
// A panel is 32 rows or columns: its tiles lie as [step of depth][upper or lower, left or right]. What is beyond the
// matrix is 0.

typedef uint32_t Pairs __attribute__((vector_size(TILE_SIDE * sizeof(uint32_t))));

// tile[i] = 16 pairs of row i, of 16 rows of 32 numbers.
static void pairs_along_rows(const float *from, int64_t stride, Pairs *tile) {
  for (int i = 0; i < TILE_SIDE; i++, from += stride)
    tile[i] = (Pairs)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + TILE_SIDE), _mm512_loadu_ps(from));
}

// tile[p] = pairs of rows 2 p and 2 p + 1, of 32 rows of 16 numbers.
static void pairs_across_rows(const float *from, int64_t stride, Pairs *tile) {
  static const uint16_t order[TILE_DEPTH] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  __m512i zip = _mm512_loadu_si512(order);
  for (int p = 0; p < TILE_SIDE; p++, from += 2 * stride) {
    __m512bh two = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + stride), _mm512_loadu_ps(from));
    tile[p] = (Pairs)_mm512_permutexvar_epi16(zip, (__m512i)two);
  }
}

#define EXCHANGE(step, low, high)                                \
  for (int i = 0; i < TILE_SIDE; i++) {                          \
    if (i & step) continue;                                      \
    Pairs upper = tile[i], lower = tile[i + step];               \
    tile[i] = __builtin_shufflevector(upper, lower, low);        \
    tile[i + step] = __builtin_shufflevector(upper, lower, high); \
  }
#define LIST(...) __VA_ARGS__

// The pairs of a tile, rows for columns: blocks of 8, 4, 2 and 1 beside the diagonal change places.
static void transpose_tile(Pairs *tile) {
  EXCHANGE(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
           LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  EXCHANGE(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
           LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  EXCHANGE(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
           LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  EXCHANGE(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
           LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
}

// The tile that begins at row or column `at` and depth `deep`.
static void pack_tile(const Operand *o, int64_t at, int64_t deep, Pairs *tile) {
  float padded[TILE_NUMBERS];
  int64_t n = min64(TILE_SIDE, o->n - at), depth = min64(TILE_DEPTH, o->depth - deep);
  int64_t stride = o->along_depth ? o->depth : o->n;
  const float *from = o->from + (o->along_depth ? at * stride + deep : deep * stride + at);
  if (n < TILE_SIDE || depth < TILE_DEPTH) {
    int64_t rows = o->along_depth ? n : depth, cols = o->along_depth ? depth : n;  // below 1 beyond the matrix
    int64_t wide = o->along_depth ? TILE_DEPTH : TILE_SIDE;
    memset(padded, 0, sizeof padded);
    for (int64_t i = 0; cols > 0 && i < rows; i++) memcpy(padded + i * wide, from + i * stride, cols * sizeof(float));
    from = padded, stride = wide;
  }
  Pairs packed[TILE_SIDE];
  if (o->along_depth) pairs_along_rows(from, stride, packed);
  else pairs_across_rows(from, stride, packed);
  if (o->along_depth == o->is_b) transpose_tile(packed);
  memcpy(tile, packed, sizeof packed);
}

// Some tiles of an operand: they read what lies side by side in memory, PACKED_AT_ONCE tiles along it.
static void pack_item(int64_t item, int, const void *arg) {
  const Operand *o = arg;
  int64_t steps = tiles_deep(o), along = o->along_depth ? steps : panels(o), pieces = div_up(along, PACKED_AT_ONCE);
  int64_t across = item / pieces, from = item % pieces * PACKED_AT_ONCE, to = min64(from + PACKED_AT_ONCE, along);
  for (int64_t i = from; i < to; i++) {
    int64_t panel = o->along_depth ? across : i, step = o->along_depth ? i : across;
    for (int half = 0; half < 2; half++)
      pack_tile(o, panel * PANEL + half * TILE_SIDE, step * TILE_DEPTH,
                (Pairs *)o->to + ((panel * steps + step) * 2 + half) * TILE_SIDE);
  }
}

// ---- sums (32 of 128 rows, 32 of 128 columns) of some steps of depth of a panel each of a and b; `add`: to what there is

#ifdef __AMX_BF16__
static void start_tiles(void) {
  struct { uint8_t palette, start_row, zero[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } tiles = {.palette = 1};
  for (int i = 0; i < 8; i++) tiles.row_bytes[i] = sizeof(Pairs), tiles.rows[i] = TILE_SIDE;
  if (bfloat16_by == AMX) _tile_loadconfig(&tiles);
}

static void end_tiles(void) {
  if (bfloat16_by == AMX) _tile_release();
}

static void multiply_by_amx(const Pairs *a, const Pairs *b, int64_t steps, float *sums, int add) {
  enum { ROW_BYTES = BLOCK * sizeof(float) };
  float *right = sums + TILE_SIDE, *lower = sums + TILE_SIDE * BLOCK, *last = lower + TILE_SIDE;
  if (add) {
    _tile_loadd(0, sums, ROW_BYTES), _tile_loadd(1, right, ROW_BYTES);
    _tile_loadd(2, lower, ROW_BYTES), _tile_loadd(3, last, ROW_BYTES);
  } else {
    _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  }
  for (int64_t i = 0; i < steps; i++, a += 2 * TILE_SIDE, b += 2 * TILE_SIDE) {
    _tile_loadd(4, a, sizeof(Pairs)), _tile_loadd(5, a + TILE_SIDE, sizeof(Pairs));
    _tile_loadd(6, b, sizeof(Pairs)), _tile_loadd(7, b + TILE_SIDE, sizeof(Pairs));
    _tile_dpbf16ps(0, 4, 6), _tile_dpbf16ps(1, 4, 7), _tile_dpbf16ps(2, 5, 6), _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, ROW_BYTES), _tile_stored(1, right, ROW_BYTES);
  _tile_stored(2, lower, ROW_BYTES), _tile_stored(3, last, ROW_BYTES);
}
#else
static void start_tiles(void) {}
static void end_tiles(void) {}
#endif

static void multiply_by_avx512(const Pairs *a, const Pairs *b, int64_t steps, float *sums, int add) {
  enum { ROWS = 8 };
  for (int row = 0; row < PANEL; row += ROWS, sums += ROWS * BLOCK) {
    __m512 sum[ROWS][2];
    for (int i = 0; i < ROWS; i++)
      for (int half = 0; half < 2; half++)
        sum[i][half] = add ? _mm512_loadu_ps(sums + i * BLOCK + half * TILE_SIDE) : _mm512_setzero_ps();
    const uint32_t *pairs = (const uint32_t *)(a + row);
    const Pairs *columns = b;
    for (int64_t step = 0; step < steps; step++, pairs += 2 * TILE_SIDE * TILE_SIDE, columns += 2 * TILE_SIDE)
      for (int p = 0; p < TILE_SIDE; p++)
        for (int i = 0; i < ROWS; i++) {
          __m512bh pair = (__m512bh)_mm512_set1_epi32((int)pairs[i * TILE_SIDE + p]);
          sum[i][0] = _mm512_dpbf16_ps(sum[i][0], pair, (__m512bh)columns[p]);
          sum[i][1] = _mm512_dpbf16_ps(sum[i][1], pair, (__m512bh)columns[p + TILE_SIDE]);
        }
    for (int i = 0; i < ROWS; i++)
      for (int half = 0; half < 2; half++) _mm512_storeu_ps(sums + i * BLOCK + half * TILE_SIDE, sum[i][half]);
  }
}

static void multiply(const Pairs *a, const Pairs *b, int64_t steps, float *sums, int add) {
#ifdef __AMX_BF16__
  if (bfloat16_by == AMX) return multiply_by_amx(a, b, steps, sums, add);
#endif
  multiply_by_avx512(a, b, steps, sums, add);
}

// c = sums (+ c), then bias and activation, for a block whose sums are complete.
static void finish_block(const Gemm *g, const float *sums, int64_t row, int64_t col, int64_t rows, int64_t cols) {
  float *c = g->c + row * g->n + col;
  for (int64_t i = 0; i < rows; i++) {
    float *restrict out = c + i * g->n;
    for (int64_t j = 0; j < cols; j++) out[j] = sums[i * BLOCK + j] + (g->beta != 0.0f ? g->beta * out[j] : 0.0f);
  }
  add_bias(g, c, col, rows, cols);
}

typedef struct { const Gemm *g; int64_t rows, steps, blocks_wide; } Product;

// One block of c, in parts of the depth that caches hold.
static void multiply_item(int64_t item, int, const void *arg) {
  const Product *s = arg;
  int64_t row = item / s->blocks_wide * BLOCK, col = item % s->blocks_wide * BLOCK;
  int64_t rows = min64(BLOCK, s->rows - row), cols = min64(BLOCK, s->g->n - col);
  const Pairs *a = (const Pairs *)s->g->a, *b = (const Pairs *)s->g->b;
  _Alignas(sizeof(Pairs)) float sums[BLOCK * BLOCK];
  start_tiles();
  for (int64_t from = 0; from < s->steps; from += STEPS_AT_ONCE)
    for (int64_t j = 0; j < cols; j += PANEL)
      for (int64_t i = 0; i < rows; i += PANEL)
        multiply(a + ((row + i) / PANEL * s->steps + from) * 2 * TILE_SIDE,
                 b + ((col + j) / PANEL * s->steps + from) * 2 * TILE_SIDE, min64(STEPS_AT_ONCE, s->steps - from),
                 sums + i * BLOCK + j, from > 0);
  end_tiles();
  finish_block(s->g, sums, row, col, rows, cols);
}

// c of `rows` rows from packed a and b.
static void multiply_packed(const Gemm *g, int64_t rows) {
  double start = now_s();
  Product s = {.g = g, .rows = rows, .steps = div_up(g->k, TILE_DEPTH), .blocks_wide = div_up(g->n, BLOCK)};
  parallel(div_up(rows, BLOCK) * s.blocks_wide, multiply_item, &s);
  if (blas_sgemm == timed_sgemm) gemm_seconds += pool.n_threads * (now_s() - start);
}
#endif

// Write an operand's numbers in bfloat16 to `to`.
static void pack(Operand o, float *to) {
  o.to = to;
#ifdef __AVX512BF16__
  int64_t across = o.along_depth ? panels(&o) : tiles_deep(&o), along = o.along_depth ? tiles_deep(&o) : panels(&o);
  if (bfloat16_by != ROUNDING) return parallel(across * div_up(along, PACKED_AT_ONCE), pack_item, &o);
#endif
  parallel(div_up(o.n * o.depth, ROUND_NUMBERS), round_item, &o);
}

// Pack the b of n products, each of which is then computed for several a; returns whether there was memory.
static int pack_shared(Gemm *const *products, int n) {
  int64_t floats = 0;
  for (int i = 0; i < n; i++) floats += packed_floats(operand_b(products[i]));
  float *packed = scratch(4, floats);
  for (int i = 0; packed && i < n; packed += packed_floats(operand_b(products[i])), i++)
    pack(operand_b(products[i]), packed), products[i]->b_packed = packed;
  return packed != NULL;
}

// As `gemm`, with a and b in bfloat16.
static void gemm_bfloat16(Gemm g) {
  Operand a = operand_a(&g), b = operand_b(&g);
  int64_t of_a = packed_floats(a), of_b = g.b_packed ? 0 : packed_floats(b);
  float *packed = scratch(3, of_a + of_b);
  if (!packed) return;
  pack(a, packed);
  if (!g.b_packed) pack(b, packed + of_a), g.b_packed = packed + of_a;
  g.a = packed, g.b = g.b_packed, g.bfloat16 = 0;
#ifdef __AVX512BF16__
  if (bfloat16_by != ROUNDING) return multiply_packed(&g, a.n);
#endif
  gemm(g);
}
