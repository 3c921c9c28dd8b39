/* Kernels of near.c in one type: T, with names NAME(n) and functions of the C library F(n). */

ONE(NAME(exp), T, T, F(exp)(x))
ONE(NAME(exp2), T, T, F(exp2)(x))
ONE(NAME(log), T, T, F(log)(x))
ONE(NAME(log2), T, T, F(log2)(x))
ONE(NAME(log10), T, T, F(log10)(x))
ONE(NAME(sin), T, T, F(sin)(x))
ONE(NAME(cos), T, T, F(cos)(x))
ONE(NAME(tan), T, T, F(sin)(x) / F(cos)(x))
ONE(NAME(tanh), T, T, F(tanh)(x))
ONE(NAME(erf), T, T, F(erf)(x))
ONE(NAME(sqrt), T, T, F(sqrt)(x))
ONE(NAME(rsqrt), T, T, (T)1 / F(sqrt)(x))
ONE(NAME(sigmoid), T, T, (T)1 / ((T)1 + F(exp)(-x)))
ONE(NAME(silu), T, T, x / ((T)1 + F(exp)(-x)))
ONE(NAME(gelu), T, T, (T)0.5 * x * ((T)1 + F(erf)(x * (T)0.70710678118654752440)))

/* Along the last dimension: the sum times more[0]; softmax; a norm to mean 0 and variance 1, more[0] added to it, times
   the third operand and plus the fourth, where they are there. */

ROWS(NAME(sum), {
    T total = 0;
    if (s[1][3] == (int64_t)sizeof(T)) {
        const T *a = (const T *)from;
        for (int64_t m = 0; m < n; m++) total += a[m];
    } else {
        for (int64_t m = 0; m < n; m++) total += *(const T *)(from + m * s[1][3]);
    }
    *o = total * v;
})
ROWS(NAME(softmax), {
    const T *a = (const T *)from;
    T most = a[0], total = 0;
    for (int64_t m = 1; m < n; m++) most = a[m] > most ? a[m] : most;
    IVDEP for (int64_t m = 0; m < n; m++) o[m] = F(exp)(a[m] - most);
    for (int64_t m = 0; m < n; m++) total += o[m];
    const T share = (T)1 / total;
    IVDEP for (int64_t m = 0; m < n; m++) o[m] *= share;
})
/* The largest more[1] of a row in falling order, of equals the first; the third operand gets their places. */
ROWS(NAME(topk), {
    const int64_t count = p->more[1];
    int64_t held = 0, *at = (int64_t *)(p->at[2] + i * s[2][0] + j * s[2][1] + k * s[2][2]);
    for (int64_t m = 0; m < n; m++) {
        const T x = *(const T *)(from + m * s[1][3]);
        if (held == count && !(x > o[count - 1])) continue;
        int64_t to = held < count ? held++ : count - 1;
        for (; to && x > o[to - 1]; to--) o[to] = o[to - 1], at[to] = at[to - 1];
        o[to] = x, at[to] = m;
    }
    if (held < count) return 1;
})
ROWS(NAME(norm), {
    const T *a = (const T *)from;
    const T *w = (const T *)p->at[2], *b = (const T *)p->at[3];
    T total = 0, square = 0;
    for (int64_t m = 0; m < n; m++) total += a[m];
    const T mean = total / (T)n;
    for (int64_t m = 0; m < n; m++) square += (a[m] - mean) * (a[m] - mean);
    const T scale = (T)1 / F(sqrt)(square / (T)n + v);
    if (w && b) {
        IVDEP for (int64_t m = 0; m < n; m++) o[m] = (a[m] - mean) * scale * w[m] + b[m];
    } else {
        IVDEP for (int64_t m = 0; m < n; m++)
            o[m] = (a[m] - mean) * scale * (w ? w[m] : (T)1) + (b ? b[m] : (T)0);
    }
})

/* Products of matrices. Sizes are those of the batch, rows, columns and the sum; strides likewise, in bytes; the fourth
   operand, where it is there, is added.

   A live step has few frames, so this is a matrix and some vectors, and bound by how fast the matrix is read. */

typedef T NAME(Lanes) __attribute__((vector_size(BYTES)));
#define LANES ((int64_t)(BYTES / sizeof(T)))

static inline NAME(Lanes) NAME(load)(const char *at) {
    NAME(Lanes) lanes;
    memcpy(&lanes, at, sizeof lanes);
    return lanes;
}

/* `count` times as many neighbouring rows as fit a register, whose sums stay in registers; `count` is a constant. */
static inline __attribute__((always_inline)) void NAME(tile)(const int count, int64_t sums, const char *w, int64_t sk,
                                                             const char *x, int64_t sx, T *found) {
    NAME(Lanes) even[4 * TIMES], odd[4 * TIMES];
    for (int i = 0; i < count; i++) even[i] = odd[i] = (NAME(Lanes)){0};
    int64_t k = 0;
    for (; k + 2 <= sums; k += 2, w += 2 * sk, x += 2 * sx) {
        const T p = *(const T *)x, q = *(const T *)(x + sx);
        for (int i = 0; i < count; i++) {
            even[i] += p * NAME(load)(w + BYTES * i);
            odd[i] += q * NAME(load)(w + sk + BYTES * i);
        }
    }
    if (k < sums)
        for (int i = 0; i < count; i++) even[i] += *(const T *)x * NAME(load)(w + BYTES * i);
    for (int i = 0; i < count; i++) even[i] += odd[i], memcpy(found + i * LANES, even + i, BYTES);
}

#define W T
#define OF(n) NAME(n)
#define WIDE(at) NAME(load)((const char *)(at))
#define ONE_OF(at) (*(at))
#define OPEN(at, n, to) ((void)(to), (at))
#define STEP(p) (p->w_sum / (int64_t)sizeof(T))
#include "near_rows.h"
#undef W
#undef OF
#undef WIDE
#undef ONE_OF
#undef OPEN
#undef STEP

/* A matrix that lies otherwise, with one of the vectors. */
static void NAME(vector)(const Product *p, int64_t m) {
    const int64_t t = sizeof(T), rows = p->rows, sums = p->sums, sr = p->w_row, sk = p->w_sum, sx = p->x_sum;
    const char *w = p->w, *x = p->x + m * p->x_vector, *bias = p->bias ? p->bias + m * p->bias_vector : 0;
    char *o = p->o + m * p->o_vector;
    const T share = (T)p->share;
    const int64_t least = TIMES * LANES;
    if (sr == t && rows >= least) {
        for (int64_t from = 0; from < rows;) {
            const int64_t left = rows - from;
            const int64_t n = left >= 4 * least ? 4 * least : left >= 2 * least ? 2 * least : least;
            T found[4 * TIMES * LANES];
            /* The last ones once more, where there are fewer than fit. */
            if (left < least) from = rows - least;
            if (n == 4 * least) NAME(tile)(4 * TIMES, sums, w + from * sr, sk, x, sx, found);
            else if (n == 2 * least) NAME(tile)(2 * TIMES, sums, w + from * sr, sk, x, sx, found);
            else NAME(tile)(TIMES, sums, w + from * sr, sk, x, sx, found);
            for (int64_t r = 0; r < n; r++)
                *(T *)(o + (from + r) * p->o_row) =
                    share * found[r] + (bias ? *(const T *)(bias + (from + r) * p->bias_row) : (T)0);
            from += n;
        }
        return;
    }
    for (int64_t from = 0; from < rows; from += SPAN) {
        const int64_t n = rows - from < SPAN ? rows - from : SPAN;
        T total[SPAN];
        for (int64_t r = 0; r < n; r++) total[r] = 0;
        for (int64_t k = 0; k < sums; k++) {
            const T y = *(const T *)(x + k * sx);
            for (int64_t r = 0; r < n; r++) total[r] += *(const T *)(w + (from + r) * sr + k * sk) * y;
        }
        for (int64_t r = 0; r < n; r++)
            *(T *)(o + (from + r) * p->o_row) =
                share * total[r] + (bias ? *(const T *)(bias + (from + r) * p->bias_row) : (T)0);
    }
}
static int NAME(product)(const Op *p) {
    for (int64_t i = 0; i < p->size[0]; i++) {
        /* The larger of the two is the matrix, and the other's frames are its vectors. */
        const Product one = product_of(p, i, p->size[1] <= p->size[2]);
        if (one.rows == 1) {
            T total = 0;
            for (int64_t k = 0; k < one.sums; k++)
                total += *(const T *)(one.w + k * one.w_sum) * *(const T *)(one.x + k * one.x_sum);
            *(T *)one.o = (T)one.share * total + (one.bias ? *(const T *)one.bias : (T)0);
        } else if ((one.w_sum == (int64_t)sizeof(T) && one.sums > 1) || one.vectors >= FEWEST) {
            NAME(against)(&one);
        } else {
            for (int64_t m = 0; m < one.vectors; m++) NAME(vector)(&one, m);
        }
    }
    return 0;
}
#undef LANES
