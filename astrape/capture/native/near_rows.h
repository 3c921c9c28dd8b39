/* Products of a matrix, whose rows lie one number beside the other, with one to eight vectors at a time: in T, by a
   matrix of W, with names OF(n). WIDE(at) is what of it fits a register of T, ONE_OF(at) a single number.

   A row is read from end to end before the next: so memory gives 34 GB/s where four rows side by side get 15 (one core
   of an AMD EPYC), and a frame is bound by how fast its matrices are read. */

/* `count` and `chains` are constants: as many sums stay in registers, so that none waits for the one before. */
static inline __attribute__((always_inline)) void OF(row)(const int count, const int chains, int64_t sums, const W *w,
                                                          const T *x, int64_t apart, T *found) {
    NAME(Lanes) total[8 * TIMES];
    for (int i = 0; i < count * chains; i++) total[i] = (NAME(Lanes)){0};
    int64_t k = 0;
    for (; k + chains * LANES <= sums; k += chains * LANES)
        for (int j = 0; j < chains; j++) {
            const NAME(Lanes) a = WIDE(w + k + j * LANES);
            for (int i = 0; i < count; i++)
                total[j * count + i] += a * NAME(load)((const char *)(x + i * apart + k + j * LANES));
        }
    if (chains > 1)
        for (; k + LANES <= sums; k += LANES) {
            const NAME(Lanes) a = WIDE(w + k);
            for (int i = 0; i < count; i++) total[i] += a * NAME(load)((const char *)(x + i * apart + k));
        }
    for (int j = 1; j < chains; j++)
        for (int i = 0; i < count; i++) total[i] += total[j * count + i];
    for (int i = 0; i < count; i++) {
        T sum = 0;
        for (int64_t lane = 0; lane < LANES; lane++) sum += total[i][lane];
        for (int64_t rest = k; rest < sums; rest++) sum += ONE_OF(w + rest) * x[i * apart + rest];
        found[i] = sum;
    }
}

/* `count` vectors, from the `first` on, over `n` of the sums. */
static inline __attribute__((always_inline)) void OF(some)(const int count, const int chains, const Product *p,
                                                           int64_t first, int64_t from, int64_t n, const T *x,
                                                           int64_t apart) {
    const T share = (T)p->share;
    for (int64_t r = 0; r < p->rows; r++) {
        T found[8];
        OF(row)(count, chains, n, (const W *)(p->w + r * p->w_row) + from, x, apart, found);
        for (int i = 0; i < count; i++) {
            T *to = (T *)(p->o + r * p->o_row + (first + i) * p->o_vector);
            const char *bias = p->bias + r * p->bias_row + (first + i) * p->bias_vector;
            *to = share * found[i] + (from ? *to : p->bias ? *(const T *)bias : (T)0);
        }
    }
}

static void OF(against)(const Product *p) {
    T held[HELD + 16 * LANES];
    for (int64_t first = 0; first < p->vectors; first += 8) {
        const int64_t count = p->vectors - first < 8 ? p->vectors - first : 8, span = HELD / count / LANES * LANES;
        /* No power of two, by which all vectors would lie in the same few lines of the cache. */
        const int64_t apart = span + 2 * LANES;
        for (int64_t from = 0; from < p->sums; from += span) {
            const int64_t n = p->sums - from < span ? p->sums - from : span;
            for (int64_t i = 0; i < count; i++)
                for (int64_t k = 0; k < n; k++)
                    held[i * apart + k] = *(const T *)(p->x + (first + i) * p->x_vector + (from + k) * p->x_sum);
            switch (count) {
            case 1: OF(some)(1, 4 * TIMES, p, first, from, n, held, apart); break;
            case 2: OF(some)(2, 2 * TIMES, p, first, from, n, held, apart); break;
            case 3: OF(some)(3, 2 * TIMES, p, first, from, n, held, apart); break;
            case 4: OF(some)(4, TIMES, p, first, from, n, held, apart); break;
            case 5: OF(some)(5, TIMES, p, first, from, n, held, apart); break;
            case 6: OF(some)(6, TIMES, p, first, from, n, held, apart); break;
            case 7: OF(some)(7, TIMES, p, first, from, n, held, apart); break;
            default: OF(some)(8, TIMES, p, first, from, n, held, apart);
            }
        }
    }
}
