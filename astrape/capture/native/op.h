/* What all files share: an instruction, and loops over its elements. */
#ifndef ASTRAPE_OP_H
#define ASTRAPE_OP_H
#include <stdint.h>
#include <string.h>

/* An instruction: sizes of up to four dimensions, and for each of four operands its strides in bytes and its address.
   The first operand is the result. `more` is the instruction's own. program.py writes them. */
typedef struct {
    int64_t code;
    int64_t size[4];
    int64_t stride[4][4];
    char *at[4];
    int64_t more[4];
} Op;

typedef int (*Kernel)(const Op *);
typedef void (*Inner)(int64_t n, char *o, int64_t so, const char *a, int64_t sa, const char *b, int64_t sb,
                      const char *c, int64_t sc);

/* The rows along the last dimension of an instruction `p`, and where an operand's row begins; `s` is p->stride. */
#define EACH_ROW(p)                                                                                                   \
    for (int64_t i = 0; i < p->size[0]; i++)                                                                          \
        for (int64_t j = 0; j < p->size[1]; j++)                                                                      \
            for (int64_t k = 0; k < p->size[2]; k++)
#define ROW(p, operand) (p->at[operand] + i * s[operand][0] + j * s[operand][1] + k * s[operand][2])

static inline int each(const Op *p, Inner inner) {
    const int64_t(*s)[4] = p->stride;
    EACH_ROW(p)
        inner(p->size[3], ROW(p, 0), s[0][3], ROW(p, 1), s[1][3], ROW(p, 2), s[2][3], ROW(p, 3), s[3][3]);
    return 0;
}

/* The elements of the loop that follows do not depend on one another. */
#ifdef __clang__
#define IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define IVDEP _Pragma("GCC ivdep")
#endif
#define ARGS int64_t n, char *o, int64_t so, const char *a, int64_t sa, const char *b, int64_t sb, const char *c, int64_t sc
#define UNUSED (void)b, (void)sb, (void)c, (void)sc

/* A function of one number: `x`. */
#define ONE(...) ONE_(__VA_ARGS__)
#define ONE_(name, T, R, value)                                                                                       \
    static void name##_inner(ARGS) {                                                                                  \
        UNUSED;                                                                                                       \
        if (so == (int64_t)sizeof(R) && sa == (int64_t)sizeof(T)) {                                                   \
            R *O = (R *)o;                                                                                            \
            const T *A = (const T *)a;                                                                                \
            IVDEP for (int64_t i = 0; i < n; i++) { const T x = A[i]; O[i] = (R)(value); }                            \
        } else {                                                                                                      \
            for (int64_t i = 0; i < n; i++, o += so, a += sa) { const T x = *(const T *)a; *(R *)o = (R)(value); }    \
        }                                                                                                             \
    }                                                                                                                 \
    static int name(const Op *p) { return each(p, name##_inner); }

/* A function of two numbers: `x` and `y`. */
#define TWO(name, T, R, value)                                                                                        \
    static void name##_inner(ARGS) {                                                                                  \
        (void)c, (void)sc;                                                                                            \
        R *O = (R *)o;                                                                                                \
        const T *A = (const T *)a, *B = (const T *)b;                                                                 \
        const int64_t t = sizeof(T);                                                                                  \
        if (so == (int64_t)sizeof(R) && sa == t && sb == t) {                                                         \
            IVDEP for (int64_t i = 0; i < n; i++) { const T x = A[i], y = B[i]; O[i] = (R)(value); }                  \
        } else if (so == (int64_t)sizeof(R) && sa == t && sb == 0) {                                                  \
            const T y = *B;                                                                                           \
            IVDEP for (int64_t i = 0; i < n; i++) { const T x = A[i]; O[i] = (R)(value); }                            \
        } else if (so == (int64_t)sizeof(R) && sa == 0 && sb == t) {                                                  \
            const T x = *A;                                                                                           \
            IVDEP for (int64_t i = 0; i < n; i++) { const T y = B[i]; O[i] = (R)(value); }                            \
        } else {                                                                                                      \
            for (int64_t i = 0; i < n; i++, o += so, a += sa, b += sb) {                                              \
                const T x = *(const T *)a, y = *(const T *)b;                                                         \
                *(R *)o = (R)(value);                                                                                 \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    static int name(const Op *p) { return each(p, name##_inner); }

/* In ordered.c. */
int product_in_order_f(const Op *p);
int halves_in_order_f(const Op *p);
int row_in_order_f(const Op *p);
int norm_in_order_f(const Op *p);

extern const Kernel near_kernels[];
extern const int64_t near_count;
#endif
