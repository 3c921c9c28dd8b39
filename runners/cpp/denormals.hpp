// Numbers too small to matter, which take many times as long: zero while this lives, on this thread.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace astrape {

class NoDenormals {
public:
#if defined(__SSE2__)
    NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~NoDenormals() { _mm_setcsr(before_); }
    NoDenormals(const NoDenormals&) = delete;
    NoDenormals& operator=(const NoDenormals&) = delete;

private:
    unsigned before_;
#else
    NoDenormals() {}  // so that a guard is not an unused variable
#endif
};

}  // namespace astrape
