#include "common.h"

// ---- AdamW over all parameters in one call, with the clipping by global norm (Loshchilov and Hutter 2019) ----

enum { CHUNK = 32768 };
enum { LR, BETA1, BETA2, EPSILON, CLIP, CORRECTION1, CORRECTION2 };  // the entries of hyper

typedef struct {
  float *p, *m, *v;
  const float *g;
  int64_t size;
  float lr_scale, weight_decay;
} Chunk;
typedef struct { Chunk *chunks; double *squares; const float *hyper; float clip_scale; } Update;

static void square_item(int64_t i, int thread, void *arg) {
  const Update *s = arg;
  const Chunk *c = s->chunks + i;
  (void)thread;
  float sum = 0.0f;
  for (int64_t j = 0; j < c->size; j++) sum += c->g[j] * c->g[j];
  s->squares[i] = sum;
}

static void adamw_item(int64_t i, int thread, void *arg) {
  const Update *s = arg;
  const Chunk *c = s->chunks + i;
  const float *h = s->hyper;
  (void)thread;
  float lr = h[LR] * c->lr_scale, shrink = 1.0f - lr * c->weight_decay;
  float *restrict p = c->p, *restrict m = c->m, *restrict v = c->v;
  for (int64_t j = 0; j < c->size; j++) {
    float g = c->g[j] * s->clip_scale;
    m[j] = h[BETA1] * m[j] + (1.0f - h[BETA1]) * g;
    v[j] = h[BETA2] * v[j] + (1.0f - h[BETA2]) * g * g;
    p[j] = p[j] * shrink - lr * (m[j] / h[CORRECTION1]) / (sqrtf(v[j] / h[CORRECTION2]) + h[EPSILON]);
  }
}

// dims: n, then n sizes. consts: n pairs of lr scale and weight decay. bufs: grad_norm (1), n x p, n x m, n x v,
// n x g, hyper. hyper[CLIP] 0 means no clipping.
void adamw(void **bufs, const int64_t *d, const float *c) {
  int64_t n = d[0], n_chunks = 0;
  for (int64_t i = 0; i < n; i++) n_chunks += div_up(d[1 + i], CHUNK);
  Chunk *chunks = allocate(n_chunks, sizeof(Chunk)), *next = chunks;
  Update s = {chunks, allocate(n_chunks, sizeof(double)), bufs[1 + 4 * n], 1.0f};
  if (out_of_memory) {
    free(chunks), free(s.squares);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t at = 0; at < d[1 + i]; at += CHUNK)
      *next++ = (Chunk){(float *)bufs[1 + i] + at, (float *)bufs[1 + n + i] + at, (float *)bufs[1 + 2 * n + i] + at,
                        (float *)bufs[1 + 3 * n + i] + at, min64(CHUNK, d[1 + i] - at), c[2 * i], c[2 * i + 1]};
  parallel(n_chunks, square_item, &s);
  double total = 0.0;
  for (int64_t i = 0; i < n_chunks; i++) total += s.squares[i];
  float norm = *(float *)bufs[0] = (float)sqrt(total), clip = s.hyper[CLIP];
  if (clip > 0.0f && norm > clip) s.clip_scale = clip / (norm + 1e-6f);
  parallel(n_chunks, adamw_item, &s);
  free(chunks), free(s.squares);
}

typedef struct { void **bufs; const int64_t *d; } Sum;

static void accumulate_item(int64_t i, int thread, void *arg) {
  const Sum *s = arg;
  (void)thread;
  float *restrict total = s->bufs[i];
  const float *restrict g = s->bufs[s->d[0] + i], *factors = s->bufs[2 * s->d[0]];
  float keep = factors[0], scale = factors[1];
  for (int64_t j = 0; j < s->d[1 + i]; j++) total[j] = (keep ? total[j] : 0.0f) + scale * g[j];
}

// total = keep * total + scale * g, keep 0 or 1. dims: n, then n sizes. bufs: n x total, n x g, factors (keep, scale)
void accumulate(void **bufs, const int64_t *d, const float *c) {
  (void)c;
  Sum s = {bufs, d};
  parallel(d[0], accumulate_item, &s);
}
