/* Kernels whose results IEEE 754 leaves no choice about, and the loop over a program.

   Compiled without contraction and without fast arithmetic, so that a sum is a sum: what comes out is what PyTorch and
   NumPy give, to the last bit. The kernels that round as they like are in near.c. */
#include <math.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "op.h"

typedef uint8_t Truth;

#define FLOATS(M) M(f, float) M(d, double)
#define WHOLES(M) M(i, int32_t) M(l, int64_t)
#define NUMBERS(M) FLOATS(M) M(i, int32_t) M(l, int64_t)

/* Whole numbers wrap around. */
#define WRAP(suffix, T, U)                                                                                            \
    TWO(add_##suffix, T, T, (T)((U)x + (U)y))                                                                         \
    TWO(sub_##suffix, T, T, (T)((U)x - (U)y))                                                                         \
    TWO(mul_##suffix, T, T, (T)((U)x * (U)y))                                                                         \
    ONE(neg_##suffix, T, T, (T)(0 - (U)x))                                                                            \
    ONE(abs_##suffix, T, T, (T)(x < 0 ? 0 - (U)x : (U)x))                                                             \
    ONE(not_##suffix, T, T, ~x)                                                                                       \
    TWO(and_##suffix, T, T, x & y)                                                                                    \
    TWO(or_##suffix, T, T, x | y)                                                                                     \
    TWO(xor_##suffix, T, T, x ^ y)
WRAP(i, int32_t, uint32_t)
WRAP(l, int64_t, uint64_t)

#define REAL(suffix, T)                                                                                               \
    TWO(add_##suffix, T, T, x + y)                                                                                    \
    TWO(sub_##suffix, T, T, x - y)                                                                                    \
    TWO(mul_##suffix, T, T, x *y)                                                                                     \
    TWO(div_##suffix, T, T, x / y)                                                                                    \
    ONE(neg_##suffix, T, T, -x)                                                                                       \
    ONE(rcp_##suffix, T, T, (T)1 / x)
FLOATS(REAL)
ONE(abs_f, float, float, fabsf(x))
ONE(abs_d, double, double, fabs(x))
ONE(floor_f, float, float, floorf(x))
ONE(floor_d, double, double, floor(x))
ONE(ceil_f, float, float, ceilf(x))
ONE(ceil_d, double, double, ceil(x))
ONE(rint_f, float, float, rintf(x))
ONE(rint_d, double, double, rint(x))
ONE(not_b, Truth, Truth, !x)
TWO(and_b, Truth, Truth, x &y)
TWO(or_b, Truth, Truth, x | y)
TWO(xor_b, Truth, Truth, x ^ y)

/* A bound first, and then what it bounds: which is kept where both are 0, and where it is NaN. */
#define ORDER(suffix, T)                                                                                              \
    TWO(atleast_##suffix, T, T, x > y ? x : y)                                                                        \
    TWO(atmost_##suffix, T, T, x < y ? x : y)                                                                         \
    TWO(max_##suffix, T, T, (x > y || x != x) ? x : y)                                                                \
    TWO(min_##suffix, T, T, (x < y || x != x) ? x : y)                                                                \
    TWO(eq_##suffix, T, Truth, x == y)                                                                                \
    TWO(ne_##suffix, T, Truth, x != y)                                                                                \
    TWO(lt_##suffix, T, Truth, x < y)                                                                                 \
    TWO(le_##suffix, T, Truth, x <= y)                                                                                \
    TWO(gt_##suffix, T, Truth, x > y)                                                                                 \
    TWO(ge_##suffix, T, Truth, x >= y)
NUMBERS(ORDER)

/* Copies: within a type by the size of an element, and from type to type where nothing is out of range. */
#define COPY(name, T)                                                                                                 \
    static void name##_inner(ARGS) {                                                                                  \
        UNUSED;                                                                                                       \
        if (so == (int64_t)sizeof(T) && sa == (int64_t)sizeof(T)) { memmove(o, a, (size_t)n * sizeof(T)); return; }   \
        for (int64_t i = 0; i < n; i++, o += so, a += sa) *(T *)o = *(const T *)a;                                    \
    }                                                                                                                 \
    static int name(const Op *p) { return each(p, name##_inner); }
COPY(copy_1, uint8_t)
COPY(copy_4, uint32_t)
COPY(copy_8, uint64_t)
ONE(f_to_d, float, double, x)
ONE(d_to_f, double, float, x)
ONE(i_to_f, int32_t, float, x)
ONE(i_to_d, int32_t, double, x)
ONE(l_to_f, int64_t, float, x)
ONE(l_to_d, int64_t, double, x)
ONE(i_to_l, int32_t, int64_t, x)
ONE(l_to_i, int64_t, int32_t, x)
ONE(d_to_l, double, int64_t, x)
ONE(f_to_l, float, int64_t, x)
ONE(b_to_f, Truth, float, x)
ONE(b_to_d, Truth, double, x)
ONE(b_to_i, Truth, int32_t, x)
ONE(b_to_l, Truth, int64_t, x)

/* x where a condition holds, else y. */
#define WHERE(name, T)                                                                                                \
    static void name##_inner(ARGS) {                                                                                  \
        const int64_t t = sizeof(T);                                                                                  \
        T *O = (T *)o;                                                                                                \
        const T *B = (const T *)b, *C = (const T *)c;                                                                 \
        const Truth *A = (const Truth *)a;                                                                            \
        if (so == t && sa == 1 && sb == t && sc == t) {                                                               \
            IVDEP for (int64_t i = 0; i < n; i++) { const T x = B[i], y = C[i]; O[i] = A[i] ? x : y; }                \
        } else if (so == t && sa == 1 && sb == t && sc == 0) {                                                        \
            const T y = *C;                                                                                           \
            IVDEP for (int64_t i = 0; i < n; i++) { const T x = B[i]; O[i] = A[i] ? x : y; }                          \
        } else if (so == t && sa == 1 && sb == 0 && sc == t) {                                                        \
            const T x = *B;                                                                                           \
            IVDEP for (int64_t i = 0; i < n; i++) { const T y = C[i]; O[i] = A[i] ? x : y; }                          \
        } else {                                                                                                      \
            for (int64_t i = 0; i < n; i++, o += so, a += sa, b += sb, c += sc)                                       \
                *(T *)o = *(const Truth *)a ? *(const T *)b : *(const T *)c;                                          \
        }                                                                                                             \
    }                                                                                                                 \
    static int name(const Op *p) { return each(p, name##_inner); }
WHERE(where_1, uint8_t)
WHERE(where_4, uint32_t)
WHERE(where_8, uint64_t)

/* The second operand has the first one's places along all dimensions but one, where its place is named by the third.
   more: stride along that dimension, and its size. */
#define PICK(name, T)                                                                                                 \
    static int name(const Op *p) {                                                                                    \
        const int64_t(*s)[4] = p->stride, along = p->more[0];                                                         \
        const uint64_t most = (uint64_t)p->more[1];                                                                   \
        EACH_ROW(p) {                                                                                                 \
            char *o = ROW(p, 0);                                                                                      \
            const char *a = ROW(p, 1), *b = ROW(p, 2);                                                                \
            for (int64_t m = 0; m < p->size[3]; m++, o += s[0][3], a += s[1][3], b += s[2][3]) {                      \
                const int64_t place = *(const int64_t *)b;                                                            \
                if ((uint64_t)place >= most) return 1;                                                                \
                *(T *)o = *(const T *)(a + place * along);                                                            \
            }                                                                                                         \
        }                                                                                                             \
        return 0;                                                                                                     \
    }
PICK(pick_1, uint8_t)
PICK(pick_4, uint32_t)
PICK(pick_8, uint64_t)

/* The last dimension is gone through, and has one result. */
#define OVER_LAST(name, T, R, body)                                                                                   \
    static int name(const Op *p) {                                                                                    \
        const int64_t(*s)[4] = p->stride, n = p->size[3], sa = s[1][3], so = s[0][3];                                 \
        EACH_ROW(p) {                                                                                                 \
            R *o = (R *)ROW(p, 0);                                                                                    \
            const char *a = ROW(p, 1);                                                                                \
            body                                                                                                      \
        }                                                                                                             \
        return 0;                                                                                                     \
    }
#define AT(T, index) (*(const T *)(a + (index) * sa))
#define HIGHEST(suffix, T)                                                                                            \
    OVER_LAST(argmax_##suffix, T, int64_t, {                                                                          \
        (void)so;                                                                                                     \
        int64_t best = 0;                                                                                             \
        T most = AT(T, 0);                                                                                            \
        for (int64_t m = 1; m < n && most == most; m++) {                                                             \
            const T x = AT(T, m);                                                                                     \
            if (x > most || x != x) { most = x; best = m; }                                                           \
        }                                                                                                             \
        *o = best;                                                                                                    \
    })                                                                                                                \
    OVER_LAST(cumsum_##suffix, T, T, {                                                                                \
        double sum = 0;                                                                                               \
        for (int64_t m = 0; m < n; m++) { sum += AT(T, m); *(T *)((char *)o + m * so) = (T)sum; }                     \
    })
FLOATS(HIGHEST)

/* x + (v y) z with the second product and the sum in one breath, which is how PyTorch has it; v is more[0]. */
#define MULADD(name, T, f)                                                                                            \
    static int name(const Op *p) {                                                                                    \
        const int64_t(*s)[4] = p->stride, n = p->size[3], t = sizeof(T);                                              \
        double wide;                                                                                                  \
        memcpy(&wide, p->more, sizeof wide);                                                                          \
        const T v = (T)wide;                                                                                          \
        EACH_ROW(p) {                                                                                                 \
            char *o = ROW(p, 0);                                                                                      \
            const char *a = ROW(p, 1), *b = ROW(p, 2), *c = ROW(p, 3);                                                \
            if (s[0][3] == t && s[1][3] == t && s[2][3] == t && s[3][3] == t) {                                       \
                T *O = (T *)o;                                                                                        \
                const T *A = (const T *)a, *B = (const T *)b, *C = (const T *)c;                                      \
                IVDEP for (int64_t m = 0; m < n; m++) O[m] = f(v * B[m], C[m], A[m]);                                 \
            } else {                                                                                                  \
                for (int64_t m = 0; m < n; m++)                                                                       \
                    *(T *)(o + m * s[0][3]) = f(v * *(const T *)(b + m * s[2][3]),                                    \
                                                *(const T *)(c + m * s[3][3]), *(const T *)(a + m * s[1][3]));        \
            }                                                                                                         \
        }                                                                                                             \
        return 0;                                                                                                     \
    }
MULADD(muladd_f, float, fmaf)
MULADD(muladd_d, double, fma)

#define TABLE_ENTRY(name) name,
static const Kernel exact_kernels[] = {
#include "codes.h"
};
#undef TABLE_ENTRY

#define EXACT_COUNT ((int64_t)(sizeof exact_kernels / sizeof *exact_kernels))

/* Runs `count` instructions; the number of the first that failed, counted from 1, or 0. */
int64_t astrape_run(const Op *ops, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t code = ops[i].code;
        const Kernel kernel = code < EXACT_COUNT ? exact_kernels[code] : near_kernels[code - EXACT_COUNT];
        if (kernel(ops + i)) return i + 1;
    }
    return 0;
}

/* Numbers that lie side by side: `wide` of them are double and not float. */
typedef struct {
    char *at;
    int64_t count, wide;
} Span;

/* An exponent of all ones is an infinity or not a number. Looked for as whole numbers, many at a time. */
#define ALL_FINITE(suffix, T, exponent)                                                                               \
    static int finite_##suffix(const T *x, int64_t n) {                                                               \
        T found = 0;                                                                                                  \
        for (int64_t i = 0; i < n; i++) found |= (T)((x[i] & exponent) == exponent);                                  \
        return !found;                                                                                                \
    }
ALL_FINITE(f, uint32_t, 0x7f800000u)
ALL_FINITE(d, uint64_t, 0x7ff0000000000000u)

static int sound(const Span *span) {
    return span->wide ? finite_d((const uint64_t *)span->at, span->count)
                      : finite_f((const uint32_t *)span->at, span->count);
}

/* Copies numbers to where they belong, and says whether all of them are finite. */
int64_t astrape_take(const Span *to, const char *from) {
    memcpy(to->at, from, (size_t)(to->count * (to->wide ? 8 : 4)));
    return sound(to);
}

/* Denormal numbers are 0 from here on, on processors that can be told; what was before. */
static inline uint64_t flush_denormals(void) {
    uint64_t before = 0;
#if defined(__SSE2__)
    before = _mm_getcsr();
    _mm_setcsr((unsigned)before | 0x8040);
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(before) : : "memory");
    __asm__ volatile("msr fpcr, %0" : : "r"(before | 1u << 24) : "memory");
#endif
    return before;
}

static inline void leave_denormals(uint64_t before) {
#if defined(__SSE2__)
    _mm_setcsr((unsigned)before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before) : "memory");
#else
    (void)before;
#endif
}

/* A program with denormal numbers as 0, and then whether what it left in spans is finite: 0 if so, -1 if not; the
   number of the instruction that failed, counted from 1. */
int64_t astrape_push(const Op *ops, int64_t count, const Span *spans, int64_t many) {
    const uint64_t before = flush_denormals();
    const int64_t failed = astrape_run(ops, count);
    leave_denormals(before);
    if (failed) return failed;
    for (int64_t i = 0; i < many; i++)
        if (!sound(spans + i)) return -1;
    return 0;
}

/* Numbers that library.py compares with its own: bytes of an instruction, and how many kernels of each kind. And
   whether astrape_push can take denormal numbers as 0 here. */
void astrape_form(int64_t *form) {
    form[0] = (int64_t)sizeof(Op);
    form[1] = EXACT_COUNT;
    form[2] = near_count;
#if defined(__SSE2__) || defined(__aarch64__)
    form[3] = 1;
#else
    form[3] = 0;
#endif
}
