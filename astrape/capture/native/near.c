/* Kernels of functions and of long sums, which every library rounds in its own way.

   Compiled with fast arithmetic: sums in any order, multiplication and addition in one breath, and the vector functions
   of the C library where it has them (glibc: within 4 units of the last place). */
#include <math.h>

#include "op.h"

/* Numbers of a vector that a product holds at a time. */
#define SPAN 512

static inline double as_real(int64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
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

/* Numbers of a row of halves. */
#define LONGEST 4096

#ifdef __F16C__
#include <immintrin.h>
static inline float halves_row(const uint16_t *w, const float *x, int64_t sums) {
    __m256 one = _mm256_setzero_ps(), two = one, three = one, four = one;
    int64_t k = 0;
    for (; k + 32 <= sums; k += 32) {
        one += _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + k))) * _mm256_loadu_ps(x + k);
        two += _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + k + 8))) * _mm256_loadu_ps(x + k + 8);
        three += _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + k + 16))) * _mm256_loadu_ps(x + k + 16);
        four += _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + k + 24))) * _mm256_loadu_ps(x + k + 24);
    }
    one += two + (three + four);
    float total = 0;
    for (int i = 0; i < 8; i++) total += one[i];
    for (; k < sums; k++) total += _cvtsh_ss(w[k]) * x[k];
    return total;
}
#elif defined(__aarch64__)
static inline float halves_row(const uint16_t *w, const float *x, int64_t sums) {
    const __fp16 *h = (const __fp16 *)w;
    float total = 0;
    for (int64_t k = 0; k < sums; k++) total += (float)h[k] * x[k];
    return total;
}
#else
static inline float halves_row(const uint16_t *w, const float *x, int64_t sums) {
    float total = 0;
    for (int64_t k = 0; k < sums; k++) {
        /* Exponent and fraction where float32 has them, and the exponent's bias made good by a product. */
        const uint32_t bits = ((uint32_t)(w[k] & 0x8000) << 16) | ((uint32_t)(w[k] & 0x7fff) << 13);
        float value;
        memcpy(&value, &bits, sizeof value);
        total += value * 0x1p112f * x[k];
    }
    return total;
}
#endif

/* As the product of a matrix and a vector, with a matrix of float16 whose rows lie one number beside the other. What a
   frame reads is little else than matrices, and bytes are time. */
static int halves_f(const Op *p) {
    const int64_t(*s)[4] = p->stride, sums = p->size[3];
    float held[LONGEST];
    if (sums > LONGEST) return 1;
    for (int64_t i = 0; i < p->size[0]; i++) {
        for (int64_t k = 0; k < sums; k++) held[k] = *(const float *)(p->at[2] + i * s[2][0] + k * s[2][3]);
        for (int64_t r = 0; r < p->size[1]; r++) {
            const float total = halves_row((const uint16_t *)(p->at[1] + i * s[1][0] + r * s[1][1]), held, sums);
            const float bias = p->at[3] ? *(const float *)(p->at[3] + i * s[3][0] + r * s[3][1]) : 0.0f;
            *(float *)(p->at[0] + i * s[0][0] + r * s[0][1]) = total + bias;
        }
    }
    return 0;
}
#define halves_d halves_f

#define NEAR_ENTRY(name) name##_f, name##_d,
const Kernel near_kernels[] = {
#include "near_codes.h"
};
const int64_t near_count = sizeof near_kernels / sizeof *near_kernels;
