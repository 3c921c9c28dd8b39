/* Products of a matrix, whose rows lie one number beside the other, with one to sixteen vectors at a time: in T, by a
   matrix of W, with names OF(n). WIDE(at) is what of it fits a register of T, ONE_OF(at) a single number, and
   OPEN(at, n, to) are `n` of them as T, STEP(p) apart.

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

/* What was found of a row for `count` vectors: to what is there, where it is not the first of the sums, or to the bias. */
static inline void OF(leave)(const Product *p, int64_t row, int64_t first, int64_t count, int64_t from, const T *found) {
    static const T nothing = 0;
    const T share = (T)p->share;
    char *o = p->o + row * p->o_row + first * p->o_vector;
    const char *on = p->bias ? p->bias + row * p->bias_row + first * p->bias_vector : (const char *)&nothing;
    int64_t apart = p->bias ? p->bias_vector : 0;
    if (from) on = o, apart = p->o_vector;
    for (int64_t i = 0; i < count; i++, o += p->o_vector, on += apart) *(T *)o = share * found[i] + *(const T *)on;
}

/* `count` vectors, from the `first` on, over `n` of the sums. */
static inline __attribute__((always_inline)) void OF(some)(const int count, const int chains, const Product *p,
                                                           int64_t first, int64_t from, int64_t n, const T *x,
                                                           int64_t apart) {
    for (int64_t r = 0; r < p->rows; r++) {
        T found[8];
        OF(row)(count, chains, n, (const W *)(p->w + r * p->w_row) + from, x, apart, found);
        OF(leave)(p, r, first, count, from, found);
    }
}

/* From FEWEST vectors on they lie beside each other in registers, and each number of the matrix is multiplied with all of
   them: so nothing is left to be summed up across a register. `rows` and `columns` are constants. */
static inline __attribute__((always_inline)) void OF(block)(const int rows, const int columns, int64_t sums,
                                                            const T *const *w, int64_t w_sum, const T *x, T *found) {
    NAME(Lanes) total[8 * TIMES], a[2 * TIMES];
    for (int i = 0; i < rows * columns; i++) total[i] = (NAME(Lanes)){0};
    for (int64_t k = 0; k < sums; k++, x += columns * LANES) {
        for (int c = 0; c < columns; c++) {
            a[c] = NAME(load)((const char *)(x + c * LANES));
            HOLD(a[c]);
        }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) total[r * columns + c] += w[r][k * w_sum] * a[c];
    }
    memcpy(found, total, sizeof(NAME(Lanes)) * (size_t)(rows * columns));
}

/* As many vectors as `columns` registers hold at most, from the `first` on. */
static inline __attribute__((always_inline)) void OF(beside)(const int columns, const Product *p, int64_t first) {
    const int64_t left = p->vectors - first, wide = columns * LANES, count = left < wide ? left : wide;
    const int most = 8 * TIMES / columns;
    T held[HELD], opened[8][HELD / 8];
    for (int64_t from = 0; from < p->sums; from += HELD / 16) {
        const int64_t n = p->sums - from < HELD / 16 ? p->sums - from : HELD / 16;
        for (int64_t i = 0; i < wide; i++) {
            const char *x = p->x + (first + i) * p->x_vector + from * p->x_sum;
            for (int64_t k = 0; k < n; k++) held[k * wide + i] = i < count ? *(const T *)(x + k * p->x_sum) : 0;
        }
        for (int64_t r = 0; r < p->rows; r += most) {
            const int64_t rows = p->rows - r < most ? p->rows - r : most;
            const T *w[8];
            T found[8 * TIMES * LANES];
            for (int64_t i = 0; i < rows; i++)
                w[i] = OPEN((const W *)(p->w + (r + i) * p->w_row + from * p->w_sum), n, opened[i]);
            if (rows == most) OF(block)(most, columns, n, w, STEP(p), held, found);
            else for (int64_t i = 0; i < rows; i++) OF(block)(1, columns, n, w + i, STEP(p), held, found + i * wide);
            for (int64_t i = 0; i < rows; i++) OF(leave)(p, r + i, first, count, from, found + i * wide);
        }
    }
}

static void OF(against)(const Product *p) {
    T held[HELD + 16 * LANES];
    const int64_t wide = TIMES * LANES, least = p->w_sum == (int64_t)sizeof(W) ? FEWEST : 1;
    int64_t begin = 0;
    for (int64_t left = p->vectors; left >= least; left = p->vectors - begin) {
        if (left > wide + 2) OF(beside)(2 * TIMES, p, begin);
        else OF(beside)(TIMES, p, begin);
        begin += left > wide + 2 ? 2 * wide : wide;
    }
    if (begin < p->vectors) {
        const int64_t count = p->vectors - begin, span = HELD / count / LANES * LANES;
        /* No power of two, by which all vectors would lie in the same few lines of the cache. */
        const int64_t apart = span + 2 * LANES;
        for (int64_t from = 0; from < p->sums; from += span) {
            const int64_t n = p->sums - from < span ? p->sums - from : span;
            for (int64_t i = 0; i < count; i++)
                for (int64_t k = 0; k < n; k++)
                    held[i * apart + k] = *(const T *)(p->x + (begin + i) * p->x_vector + (from + k) * p->x_sum);
            switch (count) {
            case 1: OF(some)(1, 4 * TIMES, p, begin, from, n, held, apart); break;
            case 2: OF(some)(2, 2 * TIMES, p, begin, from, n, held, apart); break;
            case 3: OF(some)(3, 2 * TIMES, p, begin, from, n, held, apart); break;
            case 4: OF(some)(4, TIMES, p, begin, from, n, held, apart); break;
            default: OF(some)(5, TIMES, p, begin, from, n, held, apart);
            }
        }
    }
}
