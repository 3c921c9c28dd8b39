/* Sums in the very order in which PyTorch's own libraries were found to take them, so that they come out the same to the
   last bit. Which order that is was found by numbers so large that all others vanish beside them; whether it still is, is
   seen again whenever a step is captured, and where it is not, PyTorch's kernel stays.

   Compiled like exact.c: a sum is a sum, and a product that is added in one breath is written as such. */
#include <math.h>
#if defined(__FMA__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "op.h"

#define INLINE static inline __attribute__((always_inline))
/* Numbers of a register, and rows of a matrix whose sums are in registers together. ordered.py has the same. */
#define LANES 8

typedef float Lanes __attribute__((vector_size(4 * LANES)));

INLINE Lanes all_of(float x) { return (Lanes){x, x, x, x, x, x, x, x}; }
INLINE Lanes lanes_of_floats(const float *at) {
    Lanes x;
    memcpy(&x, at, sizeof x);
    return x;
}
INLINE void put(float *to, Lanes x) { memcpy(to, &x, sizeof x); }

/* a b + c in one breath. */
INLINE Lanes fused(Lanes a, Lanes b, Lanes c) {
#if defined(__FMA__)
    return (Lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    float32x4_t x[2], y[2], z[2];
    memcpy(x, &a, sizeof a), memcpy(y, &b, sizeof b), memcpy(z, &c, sizeof c);
    z[0] = vfmaq_f32(z[0], x[0], y[0]), z[1] = vfmaq_f32(z[1], x[1], y[1]);
    memcpy(&c, z, sizeof c);
    return c;
#else
    for (int i = 0; i < LANES; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

/* Eight numbers of float16, which is what float32 holds of them. */
INLINE Lanes lanes_of_halves(const uint16_t *at) {
#if defined(__F16C__)
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
#elif defined(__aarch64__)
    const float32x4_t x[2] = {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))),
                              vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at + 4)))};
    return lanes_of_floats((const float *)x);
#else
    Lanes found;
    for (int i = 0; i < LANES; i++) {
        /* Exponent and fraction where float32 has them, with its bias; below, a fraction alone. */
        const uint32_t sign = (uint32_t)(at[i] & 0x8000) << 16, rest = at[i] & 0x7fff;
        const uint32_t bits = sign | ((rest << 13) + (112u << 23));
        float value;
        memcpy(&value, &bits, sizeof value);
        found[i] = rest >> 10 ? value : (sign ? -0x1p-24f : 0x1p-24f) * (float)rest;
    }
    return found;
#endif
}

/* A matrix and a vector for each of a batch: sizes are those of the batch, rows, 1 and the sum, which is whole registers;
   operands the result, the matrix, the vector, and what is added at the end where it is there. Each lane of a register
   adds up its own products, one after the other; then the upper half of the lanes is added to the lower, and again, and
   again.

   more[0] is 0 where a row of the matrix lies from end to end, and 1 where LANES rows lie together: a register of each, and
   then the next of each, so that memory is read from one end to the other. more[1] is 0 where a product is added in one
   breath, and 1 where it is rounded before. */
INLINE float folded(Lanes x) {
    float half[4];
    for (int l = 0; l < 4; l++) half[l] = x[l] + x[l + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
}

#define PRODUCT(name, W, kind)                                                                                        \
    /* LANES rows, `row` apart, of registers that are `step` apart; `apart` is a constant. */                         \
    INLINE void name##_rows(const int apart, int64_t sums, const W *w, int64_t row, int64_t step, const float *x,     \
                            float *found) {                                                                           \
        Lanes total[LANES];                                                                                           \
        for (int r = 0; r < LANES; r++) total[r] = all_of(0);                                                         \
        for (int64_t k = 0; k < sums; k += LANES, w += step) {                                                        \
            const Lanes y = lanes_of_floats(x + k);                                                                   \
            for (int r = 0; r < LANES; r++) {                                                                         \
                const Lanes a = lanes_of_##kind(w + r * row);                                                         \
                total[r] = apart ? total[r] + a * y : fused(a, y, total[r]);                                          \
            }                                                                                                         \
        }                                                                                                             \
        for (int r = 0; r < LANES; r++) found[r] = folded(total[r]);                                                  \
    }                                                                                                                 \
    int name##_in_order_f(const Op *p) {                                                                              \
        const int64_t(*s)[4] = p->stride, rows = p->size[1], sums = p->size[3];                                       \
        const int together = p->more[0] != 0;                                                                         \
        const int64_t row = together ? LANES : s[1][1] / (int64_t)sizeof(W), step = together ? LANES * LANES : LANES; \
        for (int64_t i = 0; i < p->size[0]; i++) {                                                                    \
            const W *w = (const W *)(p->at[1] + i * s[1][0]);                                                         \
            const float *x = (const float *)(p->at[2] + i * s[2][0]);                                                 \
            for (int64_t r = 0; r < rows; r += LANES) {                                                               \
                /* The last ones once more, where rows do not come out even. */                                       \
                const int64_t first = together || r + LANES <= rows ? r : rows - LANES;                               \
                const int64_t count = rows - first < LANES ? rows - first : LANES;                                    \
                const char *c = p->at[3] ? p->at[3] + i * s[3][0] + first * s[3][1] : 0;                              \
                char *o = p->at[0] + i * s[0][0] + first * s[0][1];                                                   \
                const W *from = w + first * (together ? sums : row);                                                  \
                float found[LANES];                                                                                   \
                if (p->more[1]) name##_rows(1, sums, from, row, step, x, found);                                      \
                else name##_rows(0, sums, from, row, step, x, found);                                                 \
                for (int64_t j = 0; j < count; j++)                                                                   \
                    *(float *)(o + j * s[0][1]) = c ? found[j] + *(const float *)(c + j * s[3][1]) : found[j];        \
            }                                                                                                         \
        }                                                                                                             \
        return 0;                                                                                                     \
    }
PRODUCT(product, float, floats)
PRODUCT(halves, uint16_t, halves)

/* The same turned round, a vector times a matrix of a register or more a row: sizes are those of the batch, 1, columns and the
   sum. Each column adds up its products from the first to the last; nothing is added to it. */
INLINE void columns(const int registers, const int apart, const Op *p, const float *w, const char *x, char *o) {
    const int64_t step = p->stride[1][3] / (int64_t)sizeof(float), along = p->stride[2][3];
    Lanes total[LANES];
    for (int r = 0; r < registers; r++) total[r] = all_of(0);
    for (int64_t k = 0; k < p->size[3]; k++, w += step, x += along) {
        const Lanes y = all_of(*(const float *)x);
        for (int r = 0; r < registers; r++) {
            const Lanes a = lanes_of_floats(w + r * LANES);
            total[r] = apart ? total[r] + a * y : fused(a, y, total[r]);
        }
    }
    for (int r = 0; r < registers; r++) put((float *)o + r * LANES, total[r]);
}
int row_in_order_f(const Op *p) {
    const int64_t(*s)[4] = p->stride;
    for (int64_t i = 0; i < p->size[0]; i++)
        for (int64_t c = 0; c < p->size[2];) {
            /* The last columns once more, where they do not come out even. */
            if (p->size[2] - c < LANES) c = p->size[2] - LANES;
            const float *w = (const float *)(p->at[1] + i * s[1][0]) + c;
            const char *x = p->at[2] + i * s[2][0];
            char *o = p->at[0] + i * s[0][0] + c * (int64_t)sizeof(float);
            const int64_t left = (p->size[2] - c) / LANES, registers = left < LANES ? left : LANES;
#define COLUMNS(n) (p->more[1] ? columns(n, 1, p, w, x, o) : columns(n, 0, p, w, x, o))
            switch (registers) {
            case 1: COLUMNS(1); break;
            case 2: COLUMNS(2); break;
            case 3: COLUMNS(3); break;
            case 4: COLUMNS(4); break;
            case 5: COLUMNS(5); break;
            case 6: COLUMNS(6); break;
            case 7: COLUMNS(7); break;
            default: COLUMNS(8);
            }
#undef COLUMNS
            c += registers * LANES;
        }
    return 0;
}

/* Runs of Welford's mean and squared distances: registers of a run, and levels of pairs by which runs are joined. */
#define RUN 16
#define LEVELS 24

/* Of each lane: how many numbers it has seen, their mean, and the sum of their squared distances from it. */
typedef struct {
    int64_t count;
    Lanes mean, square;
} Moments;

/* The share that `count` more have of all. */
INLINE float share_of(int64_t count, int64_t before) {
    return count + before ? (float)count / (float)(count + before) : 0.0f;
}

/* Two sets of moments as one (Chan et al. 1979), and the same of one lane. */
static void join(Moments *all, const Moments *more) {
    const Lanes apart = more->mean - all->mean, moved = all_of(share_of(more->count, all->count)) * apart;
    all->mean += moved;
    all->square = fused(moved, apart * all_of((float)all->count), all->square + more->square);
    all->count += more->count;
}
static void join_lane(int64_t *all, float *mean, float *square, int64_t count, float its_mean, float its_square) {
    const float share = share_of(count, *all), apart = its_mean - *mean;
    *mean = fmaf(share, apart, *mean);
    *square += fmaf(apart * apart * share, (float)*all, its_square);
    *all += count;
}

/* Mean and variance of so many registers of numbers: lanes by themselves, in runs that are joined pair by pair, and then
   one after the other. */
static void moments(const float *x, int64_t registers, float *mean, float *variance) {
    const int64_t runs = (registers + RUN - 1) / RUN;
    int levels = 1;
    while (((int64_t)1 << levels) < runs) levels++;
    Moments level[LEVELS];
    memset(level, 0, sizeof *level * (size_t)levels);
    for (int64_t i = 0; i < runs; i++) {
        const int64_t count = registers - i * RUN < RUN ? registers - i * RUN : RUN;
        Moments run = {count, {0}, {0}};
        for (int64_t j = 0; j < count; j++) {
            const Lanes here = lanes_of_floats(x + (i * RUN + j) * LANES), apart = here - run.mean;
            run.mean = fused(apart, all_of(1.0f / (float)(j + 1)), run.mean);
            run.square = fused(apart, here - run.mean, run.square);
        }
        join(level, &run);
        for (int up = 1; up < levels && !((i + 1) >> (up - 1) & 1); up++) {
            join(level + up, level + up - 1);
            memset(level + up - 1, 0, sizeof *level);
        }
    }
    for (int up = 1; up < levels; up++) join(level, level + up);
    int64_t count = 0;
    float square = 0;
    *mean = 0;
    for (int l = 0; l < LANES; l++) join_lane(&count, mean, &square, registers, level->mean[l], level->square[l]);
    *variance = square / (float)(registers * LANES);
}

/* Each row of neighbouring numbers, whole registers of them, to mean 0 and variance 1, more[0] added to it, times the third operand and plus the
   fourth, which lie side by side where they are there. */
int norm_in_order_f(const Op *p) {
    const int64_t(*s)[4] = p->stride, n = p->size[3];
    const float *w = (const float *)p->at[2], *b = (const float *)p->at[3];
    double wide;
    memcpy(&wide, p->more, sizeof wide);
    EACH_ROW(p) {
        float *o = (float *)ROW(p, 0), mean, variance;
        const float *a = (const float *)ROW(p, 1);
        moments(a, n / LANES, &mean, &variance);
        const float scale = 1.0f / sqrtf(variance + (float)wide);
        if (w && b) {
            IVDEP for (int64_t m = 0; m < n; m++) o[m] = fmaf((a[m] - mean) * scale, w[m], b[m]);
        } else {
            for (int64_t m = 0; m < n; m++)
                o[m] = fmaf((a[m] - mean) * scale, w ? w[m] : 1.0f, b ? b[m] : 0.0f);
        }
    }
    return 0;
}
