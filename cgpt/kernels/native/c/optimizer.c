#include "common.h"

typedef struct { int64_t n, sizes[]; } TensorDims;  // how many tensors, and how many numbers in each

// ---- AdamW over all parameters in one call, with the clipping by global norm (Loshchilov and Hutter 2019) ----

enum { CHUNK = 32768 };

typedef struct { float lr, beta1, beta2, epsilon, clip, correction1, correction2; } Hyper;
typedef struct { float lr_scale, weight_decay; } Scales;
typedef struct {
  float *p, *m, *v;
  const float *g;
  int64_t size;
  Scales scales;
} Chunk;
typedef struct { Chunk *chunks; double *squares; const Hyper *hyper; float clip_scale; } Update;

// The sum of a chunk's squared gradients.
static void square_item(int64_t i, int, const void *arg) {
  const Update *s = arg;
  const Chunk *c = s->chunks + i;
  float sum = 0.0f;
  for (int64_t j = 0; j < c->size; j++) sum += c->g[j] * c->g[j];
  s->squares[i] = sum;
}

// A chunk's parameters and moments after the step.
static void adamw_item(int64_t i, int, const void *arg) {
  const Update *s = arg;
  const Chunk *c = s->chunks + i;
  const Hyper *h = s->hyper;  // not copied: the compiler would divide by reciprocals beyond the last whole vector too
  float lr = h->lr * c->scales.lr_scale, shrink = 1.0f - lr * c->scales.weight_decay;
  float *restrict p = c->p, *restrict m = c->m, *restrict v = c->v;
  for (int64_t j = 0; j < c->size; j++) {
    float g = c->g[j] * s->clip_scale;
    m[j] = h->beta1 * m[j] + (1.0f - h->beta1) * g;
    v[j] = h->beta2 * v[j] + (1.0f - h->beta2) * g * g;
    p[j] = p[j] * shrink - lr * (m[j] / h->correction1) / (sqrtf(v[j] / h->correction2) + h->epsilon);
  }
}

// One step of n parameters p with moments m and v and gradients g, and the norm of all gradients before clipping.
// Tensors: norm (1), n x p, n x m, n x v, n x g, hyper (7), in which clip 0 means no clipping.
void adamw(const void *arg) {
  const struct { float *const *bufs; const TensorDims *dims; const Scales *scales; } *call = arg;
  const TensorDims *d = call->dims;
  int64_t n = d->n, n_chunks = 0;
  float *norm = call->bufs[0], *const *p = call->bufs + 1, *const *m = p + n, *const *v = m + n, *const *g = v + n;
  for (int64_t i = 0; i < n; i++) n_chunks += div_up(d->sizes[i], CHUNK);
  Chunk *chunks = allocate(n_chunks, sizeof(Chunk)), *next = chunks;
  Update s = {.chunks = chunks, .squares = allocate(n_chunks, sizeof(double)), .hyper = (const Hyper *)g[n],
              .clip_scale = 1.0f};
  if (out_of_memory) {
    free(chunks), free(s.squares);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t at = 0; at < d->sizes[i]; at += CHUNK)
      *next++ = (Chunk){.p = p[i] + at, .m = m[i] + at, .v = v[i] + at, .g = g[i] + at,
                        .size = min64(CHUNK, d->sizes[i] - at), .scales = call->scales[i]};
  parallel(n_chunks, square_item, &s);
  double total = 0.0;
  for (int64_t i = 0; i < n_chunks; i++) total += s.squares[i];
  *norm = (float)sqrt(total);
  if (s.hyper->clip > 0.0f && *norm > s.hyper->clip) s.clip_scale = s.hyper->clip / (*norm + 1e-6f);
  parallel(n_chunks, adamw_item, &s);
  free(chunks), free(s.squares);
}

// ---- gradients of several micro-batches ----

typedef struct { float *const *bufs; const TensorDims *dims; } Accumulate;

// One tensor's sum.
static void accumulate_item(int64_t i, int, const void *arg) {
  const Accumulate *call = arg;
  int64_t n = call->dims->n;
  const float *restrict g = call->bufs[n + i], *factors = call->bufs[2 * n];
  float *restrict total = call->bufs[i], keep = factors[0], scale = factors[1];
  for (int64_t j = 0; j < call->dims->sizes[i]; j++) total[j] = (keep ? total[j] : 0.0f) + scale * g[j];
}

// total = keep * total + scale * g for n tensors, keep 0 or 1. Tensors: n x total, n x g, factors (2) = keep, scale.
void accumulate(const void *arg) {
  const Accumulate *call = arg;
  parallel(call->dims->n, accumulate_item, call);
}
