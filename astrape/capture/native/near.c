/* Kernels of functions and of long sums, which every library rounds in its own way.

   Compiled with fast arithmetic: sums in any order, multiplication and addition in one breath, and the vector functions
   of the C library where it has them (glibc: within 4 units of the last place). */
#include <math.h>
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "op.h"

/* Bytes of a register, and how many registers are as long as the longest choose from: as many times more of the short ones
   are worked on at once. AVX has 16 of 32 bytes, NEON 32 of 16. */
#ifdef __AVX__
#define BYTES 32
#else
#define BYTES 16
#endif
#define TIMES (32 / BYTES)

/* Has a register keep what GCC would else read again from memory for each of several uses. */
#ifdef __SSE2__
#define HOLD(lanes) __asm__("" : "+x"(lanes))
#else
#define HOLD(lanes) (void)(lanes)
#endif

/* Numbers of a result, and of all vectors, that a product holds at a time: no more than stay in the first cache. And how
   many vectors are worth laying beside each other. */
#define SPAN 512
#define HELD 6144
#define FEWEST 6

static inline double as_real(int64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A matrix, vectors that it is multiplied with, their results, a factor of these and what is added to them; strides in
   bytes. */
typedef struct {
    int64_t vectors, rows, sums;
    const char *w, *x, *bias;
    char *o;
    double share;
    int64_t w_row, w_sum, x_vector, x_sum, bias_row, bias_vector, o_row, o_vector;
} Product;

/* The product with number `i` of a batch; `turned`: the second operand is the matrix. */
static inline Product product_of(const Op *p, int64_t i, int turned) {
    const int64_t(*s)[4] = p->stride;
    const int w = turned ? 2 : 1, x = turned ? 1 : 2, row = turned ? 2 : 1, vector = turned ? 1 : 2;
    return (Product){
        .vectors = p->size[vector], .rows = p->size[row], .sums = p->size[3],
        .w = p->at[w] + i * s[w][0], .x = p->at[x] + i * s[x][0], .bias = p->at[3] ? p->at[3] + i * s[3][0] : 0,
        .o = p->at[0] + i * s[0][0], .share = as_real(p->more[0]),
        .w_row = s[w][row], .w_sum = s[w][3], .x_vector = s[x][vector], .x_sum = s[x][3],
        .bias_row = s[3][row], .bias_vector = s[3][vector], .o_row = s[0][row], .o_vector = s[0][vector],
    };
}

/* A kernel over rows of n numbers: `from` the second operand's row, `o` the result's, `v` more[0]. */
#define ROWS(name, ...)                                                                                               \
    static int name(const Op *p) {                                                                                    \
        const int64_t(*s)[4] = p->stride, n = p->size[3];                                                             \
        const T v = (T)as_real(p->more[0]);                                                                           \
        for (int64_t i = 0; i < p->size[0]; i++)                                                                      \
            for (int64_t j = 0; j < p->size[1]; j++)                                                                  \
                for (int64_t k = 0; k < p->size[2]; k++) {                                                            \
                    T *o = (T *)(p->at[0] + i * s[0][0] + j * s[0][1] + k * s[0][2]);                                 \
                    const char *from = p->at[1] + i * s[1][0] + j * s[1][1] + k * s[1][2];                            \
                    (void)v;                                                                                          \
                    __VA_ARGS__                                                                                       \
                }                                                                                                     \
        return 0;                                                                                                     \
    }

#define T float
#define NAME(n) n##_f
#define F(n) n##f
#include "near_real.h"
#undef T
#undef NAME
#undef F
#define T double
#define NAME(n) n##_d
#define F(n) n
#include "near_real.h"

/* As the product of a matrix and vectors, with a matrix of float16. What a frame reads is little else than matrices, and
   bytes are time. */
#if defined(__F16C__)
static inline float half_of(const uint16_t *at) { return _cvtsh_ss(*at); }
static inline Lanes_f halves_of(const uint16_t *at) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at)); }
#elif defined(__aarch64__)
static inline float half_of(const uint16_t *at) { return (float)*(const __fp16 *)at; }
static inline Lanes_f halves_of(const uint16_t *at) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))); }
#else
static inline float half_of(const uint16_t *at) {
    const uint32_t sign = (uint32_t)(*at & 0x8000) << 16, rest = *at & 0x7fff;
    /* Exponent and fraction where float32 has them, with its bias; below, a fraction alone. */
    const uint32_t bits = sign | ((rest << 13) + (112u << 23));
    float value;
    memcpy(&value, &bits, sizeof value);
    return rest >> 10 ? value : (sign ? -0x1p-24f : 0x1p-24f) * (float)rest;
}
static inline Lanes_f halves_of(const uint16_t *at) {
    Lanes_f found;
    for (int i = 0; i < BYTES / 4; i++) found[i] = half_of(at + i);
    return found;
}
#endif
#undef T
#undef NAME
#define T float
#define NAME(n) n##_f
#define LANES (BYTES / 4)
#define W uint16_t
#define OF(n) n##_of_halves
#define WIDE(at) halves_of(at)
#define ONE_OF(at) half_of(at)
#define OPEN(at, n, to) opening(at, n, to)
#define STEP(p) 1
static inline const float *opening(const uint16_t *at, int64_t n, float *to) {
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        const Lanes_f lanes = halves_of(at + k);
        memcpy(to + k, &lanes, sizeof lanes);
    }
    for (; k < n; k++) to[k] = half_of(at + k);
    return to;
}
#include "near_rows.h"
#undef T
#undef NAME
#undef LANES
static int halves_f(const Op *p) {
    for (int64_t i = 0; i < p->size[0]; i++) {
        const Product one = product_of(p, i, 0);
        against_of_halves(&one);
    }
    return 0;
}
#define halves_d halves_f

#define NEAR_ENTRY(name) name##_f, name##_d,
const Kernel near_kernels[] = {
#include "near_codes.h"
};
const int64_t near_count = sizeof near_kernels / sizeof *near_kernels;
