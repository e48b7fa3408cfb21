#pragma once
// The CPU kernels of a GPT, float32, row-major, named as in native/ops.py. Matrix products are OpenBLAS's or packed.c's.
//
// Every kernel is `name(const void *call)`. It sees the call as a struct of its own that names, behind three pointers,
// its tensors (`bufs`, outputs first), its sizes (`dims`, all int64) and its constants (`consts`, all float).
// Shapes: B sequences, T tokens, C = d_model, H heads of width D, V words, S positions.
// Work is cut into items by shape alone and threads take items as they come free, so a result is the same bit for
// bit at any number of threads. Reductions over items run in item order.
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                         const float *b, int ldb, float beta, float *c, int ldc);
enum { ROW_MAJOR = 101, NO = 111, YES = 112 };  // the constants of cblas.h
enum { QUERY_BLOCK = 64, SPINS = 4000 };
static sgemm_fn blas_sgemm;

// ---- threads: a pool that spins for some microseconds, then sleeps ----
//
// A call ends with its last item, not with its last worker: one that wakes late, on a busy machine, finds nothing left.
// What is left stands beside the number of the call in one word, so that a late worker cannot take an item of a later
// call for one of its own; whoever took an item may read the rest of `pool`, as the call does not end before it does.

typedef void (*item_fn)(int64_t item, int thread, const void *arg);
static struct {
  int n_threads;
  item_fn fn;
  const void *arg;
  int64_t n_items;
  _Atomic uint64_t open;  // number of the call << 32 | items that nobody has taken
  _Atomic int64_t unfinished;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
} pool = {.n_threads = 1, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

// The number of the call whose items are open, or were last.
static uint32_t current_call(void) { return (uint32_t)(atomic_load(&pool.open) >> 32); }

// Compute items of the current call until nobody's are left.
static void take_items(int thread) {
  uint64_t open = atomic_load(&pool.open);
  while ((uint32_t)open) {
    if (!atomic_compare_exchange_weak(&pool.open, &open, open - 1)) continue;
    pool.fn(pool.n_items - (uint32_t)open, thread, pool.arg);
    atomic_fetch_sub(&pool.unfinished, 1);
    open = atomic_load(&pool.open);
  }
}

// The life of a thread, whose number `thread` is: wait for a call, take items, and again.
static void *worker(void *thread) {
  for (uint32_t seen = 0;;) {
    for (int i = 0; i < SPINS && current_call() == seen; i++) __asm__ volatile("" ::: "memory");
    if (current_call() == seen) {
      pthread_mutex_lock(&pool.mutex);
      while (current_call() == seen) pthread_cond_wait(&pool.wake, &pool.mutex);
      pthread_mutex_unlock(&pool.mutex);
    }
    seen = current_call();
    take_items((int)(intptr_t)thread);
  }
  return NULL;
}

// fn(item, thread, arg) for every item from 0 to n_items - 1, on all threads.
static void parallel(int64_t n_items, item_fn fn, const void *arg) {
  if (pool.n_threads == 1 || n_items == 1) {
    for (int64_t i = 0; i < n_items; i++) fn(i, 0, arg);
    return;
  }
  pool.fn = fn, pool.arg = arg, pool.n_items = n_items;
  atomic_store(&pool.unfinished, n_items);
  pthread_mutex_lock(&pool.mutex);
  atomic_store(&pool.open, (uint64_t)(current_call() + 1) << 32 | (uint64_t)n_items);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.mutex);
  take_items(0);
  while (atomic_load(&pool.unfinished)) sched_yield();
}

// Start the pool; returns its number of threads, this one included: fewer than asked for where no more can start.
int start(sgemm_fn sgemm, int n_threads) {
  blas_sgemm = sgemm;
  for (; pool.n_threads < n_threads; pool.n_threads++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)pool.n_threads)) break;
    pthread_detach(thread);
  }
  return pool.n_threads;
}

// ---- time in matrix products, counted on request: reading the clock costs small ones some per cent ----

static sgemm_fn untimed_sgemm;
static double gemm_seconds;
static pthread_mutex_t gemm_mutex = PTHREAD_MUTEX_INITIALIZER;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void count_gemm(double start) {
  double took = now_s() - start;
  pthread_mutex_lock(&gemm_mutex);
  gemm_seconds += took;
  pthread_mutex_unlock(&gemm_mutex);
}

static void timed_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc) {
  double start = now_s();
  untimed_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  count_gemm(start);
}

// Count the time in matrix products from 0, or stop counting it.
void time_gemm(int on) {
  if (blas_sgemm != timed_sgemm) untimed_sgemm = blas_sgemm;
  blas_sgemm = on ? timed_sgemm : untimed_sgemm;
  gemm_seconds = 0.0;
}

// Whether it is counted.
static int gemm_timed(void) { return blas_sgemm == timed_sgemm; }

// Seconds in matrix products since they are counted, the mean over the threads.
double gemm_s(void) { return gemm_seconds / pool.n_threads; }

static int out_of_memory;  // a kernel that gets no memory does nothing

// Whether a kernel since the last question got no memory.
int take_out_of_memory(void) {
  int was = out_of_memory;
  out_of_memory = 0;
  return was;
}

// One growing scratch area per use; kernels run one at a time. NULL where there is no such memory.
static float *scratch(int slot, int64_t n_floats) {
  enum { N_SLOTS = 6 };
  static float *area[N_SLOTS];
  static int64_t size[N_SLOTS];
  const int64_t most = (int64_t)1 << 44;
  if (slot < 0 || slot >= N_SLOTS || n_floats < 1 || n_floats > most) return out_of_memory = 1, NULL;
  if (size[slot] < n_floats) {
    free(area[slot]);
    area[slot] = aligned_alloc(64, (n_floats * sizeof(float) + 63) / 64 * 64);
    size[slot] = area[slot] ? n_floats : 0;
    out_of_memory |= !area[slot];
  }
  return area[slot];
}

// Memory for each thread: the kernel reserves it, which fails where there is none, and an item asks for its thread's.
static int reserve(int64_t n_floats) { return scratch(0, pool.n_threads * n_floats) != NULL; }
static float *thread_scratch(int thread, int64_t n_floats) {
  return scratch(0, pool.n_threads * n_floats) + thread * n_floats;
}

// n zeroed elements of a size, to be freed by the caller. NULL where there is no such memory.
static void *allocate(int64_t n, size_t size) {
  void *memory = n < 0 ? NULL : calloc(n ? n : 1, size);
  out_of_memory |= !memory;
  return memory;
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- elementary functions, written so that the compiler vectorises them ----

static inline float fast_exp(float x) {  // Cephes expf: below 2 ulp on [-87, 88]
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float n = __builtin_rintf(x * 1.44269504088896341f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f, p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f, p = p * r + 5.0000001201e-1f;
  union { uint32_t i; float f; } scale = {.i = (uint32_t)((int32_t)n + 127) << 23};
  return (p * r * r + r + 1.0f) * scale.f;
}

static inline float fast_erf(float x) {  // the rational approximation of Eigen and XLA, clamped where erf rounds to 1
  x = x < -4.0f ? -4.0f : x > 4.0f ? 4.0f : x;
  float s = x * x;
  float p = -2.72614225801306e-10f;
  p = p * s + 2.77068142495902e-08f, p = p * s - 2.10102402082508e-06f, p = p * s - 5.69250639462346e-05f;
  p = p * s - 7.34990630326855e-04f, p = p * s - 2.95459980854025e-03f, p = p * s - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * s - 2.13374055278905e-04f, q = q * s - 1.68282697438203e-03f, q = q * s - 7.37332916720468e-03f;
  q = q * s - 1.42647390514189e-02f;
  return x * p / q;
}

static inline float gelu(float x) { return 0.5f * x * (1.0f + fast_erf(x * 0.70710678118654752f)); }

static inline float gelu_slope(float x) {
  return 0.5f * (1.0f + fast_erf(x * 0.70710678118654752f)) + x * 0.39894228040143268f * fast_exp(-0.5f * x * x);
}

// 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), the approximation in GPT-2
static inline float gelu_new_gate(float x) {
  return 1.0f / (1.0f + fast_exp(-1.5957691216057308f * x * (1.0f + 0.044715f * x * x)));
}

static inline float gelu_new_slope(float x) {
  float gate = gelu_new_gate(x);
  return gate + x * gate * (1.0f - gate) * 1.5957691216057308f * (1.0f + 0.134145f * x * x);
}

enum { IDENTITY, GELU, GELU_NEW, RELU };  // as numbered in native/ops.py

// y = activation(x), which may be x itself. Inlined, so that the compiler knows whether it is.
static inline __attribute__((always_inline)) void activate(int64_t activation, const float *x, float *y, int64_t n) {
  if (activation == GELU)
    for (int64_t i = 0; i < n; i++) y[i] = gelu(x[i]);
  else if (activation == GELU_NEW)
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * gelu_new_gate(x[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

// dx = dy * activation'(x)
static inline void activation_gradient(int64_t activation, const float *restrict x, const float *restrict dy,
                                       float *restrict dx, int64_t n) {
  if (activation == GELU)
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * gelu_slope(x[i]);
  else if (activation == GELU_NEW)
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * gelu_new_slope(x[i]);
  else
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] <= 0.0f ? 0.0f : dy[i];
}

// ---- matrix product, cut along its longer side into pieces of at least 32 MFLOP ----

// c (m, n) = a (m, k) b (k, n) + beta c, each without gaps; a transposed one lies in memory as (k, m) or (n, k).
typedef struct {
  int64_t m, n, k;
  const float *a, *b;
  float *c, beta;
  int a_transposed, b_transposed;
  int64_t n_groups;    // so many a and c, one after the other, are multiplied with one b on their own; 0: one
  const float *bias;   // (n), added to every row of c if set
  float *activated;    // activation(c) if set, as c
  int64_t activation;
  int64_t bfloat16;    // whether a and b are rounded to bfloat16 first
  const float *b_packed;  // then b as `pack` leaves it, if that was done before
} Gemm;

static void gemm_bfloat16(Gemm g);

static int64_t longer_side(const Gemm *g) { return g->m > g->n ? g->m : g->n; }

// Rows or columns of a piece, the last one's apart: a multiple of 16.
static int64_t piece_size(const Gemm *g) {
  int64_t by_work = 2 * g->m * g->n * g->k / 32000000, pieces = by_work < 1 ? 1 : by_work > 8 ? 8 : by_work;
  return div_up(div_up(longer_side(g), pieces), 16) * 16;
}

static int64_t n_pieces(const Gemm *g) { return div_up(longer_side(g), piece_size(g)); }

// c += bias, and then its activation, for some rows and columns, from column `col` on.
static void add_bias(const Gemm *g, float *c, int64_t col, int64_t rows, int64_t cols) {
  if (!g->bias) return;
  for (int64_t i = 0; i < rows; i++) {
    float *restrict out = c + i * g->n;
    for (int64_t j = 0; j < cols; j++) out[j] += g->bias[col + j];
    if (!g->activated) continue;
    float *restrict act = g->activated + (out - g->c);
    activate(g->activation, out, act, cols);
  }
}

// One piece of one group's product.
static void gemm_item(int64_t item, int, const void *arg) {
  const Gemm *g = arg;
  int64_t group = item / n_pieces(g), from = item % n_pieces(g) * piece_size(g);
  int64_t size = min64(piece_size(g), longer_side(g) - from), by_rows = g->m > g->n;
  int64_t row = by_rows ? from : 0, col = by_rows ? 0 : from;
  int64_t rows = by_rows ? size : g->m, cols = by_rows ? g->n : size;
  int64_t lda = g->a_transposed ? g->m : g->k, ldb = g->b_transposed ? g->k : g->n;
  const float *a = g->a + group * g->m * g->k + (g->a_transposed ? row : row * lda);
  const float *b = g->b + (g->b_transposed ? col * ldb : col);
  float *c = g->c + (group * g->m + row) * g->n + col;
  blas_sgemm(ROW_MAJOR, g->a_transposed ? YES : NO, g->b_transposed ? YES : NO, rows, cols, g->k, 1.0f, a, lda, b, ldb,
             g->beta, c, g->n);
  add_bias(g, c, col, rows, cols);
}

static int is_packed;                    // whether the engine is our own
static void packed_gemm(const Gemm *g);  // of packed.c

// Have our own engine compute all later products (1), or OpenBLAS (0).
void set_engine(int packed) { is_packed = packed; }

static void gemm(Gemm g) {
  if (g.bfloat16) return gemm_bfloat16(g);
  if (!g.n_groups) g.n_groups = 1;
  if (is_packed) return packed_gemm(&g);
  parallel(g.n_groups * n_pieces(&g), gemm_item, &g);
}
