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

#define NEAR_ENTRY(name) name##_f, name##_d,
const Kernel near_kernels[] = {
#include "near_codes.h"
};
const int64_t near_count = sizeof near_kernels / sizeof *near_kernels;
