// The AVX-512 intrinsics that kernels/cpu/simd_avx512.h uses, computed with AVX2, so that the
// AVX-512 table runs through the kernel suite on machines without it. Stands in front of the
// compiler's <immintrin.h> when the table is compiled for that test, and nowhere else. What each
// does is Intel's Intrinsics Guide; one that is missing here fails to compile.
#pragma once

#include_next <immintrin.h>

namespace avx512_emulator {

// The compiler splits vectors of 64 bytes into halves by itself.
struct Halves {
  __m256i lo, hi;
};
static inline Halves halves(__m512i a) {
  Halves h;
  __builtin_memcpy(&h, &a, 64);
  return h;
}
static inline __m512i join(__m256i lo, __m256i hi) {
  const Halves h{lo, hi};
  __m512i a;
  __builtin_memcpy(&a, &h, 64);
  return a;
}
static inline __m512 as_ps(__m512i a) { return (__m512)a; }
static inline __m512i as_si(__m512 a) { return (__m512i)a; }

template <class F>
static inline __m512i each(__m512i a, F f) {
  const Halves h = halves(a);
  return join(f(h.lo), f(h.hi));
}
template <class F>
static inline __m512i each(__m512i a, __m512i b, F f) {
  const Halves g = halves(a), h = halves(b);
  return join(f(g.lo, h.lo), f(g.hi, h.hi));
}
template <class F>
static inline __m512 each_ps(__m512 a, __m512 b, F f) {
  return as_ps(each(as_si(a), as_si(b), [&](__m256i x, __m256i y) {
    return _mm256_castps_si256(f(_mm256_castsi256_ps(x), _mm256_castsi256_ps(y)));
  }));
}
template <class F>
static inline __m512 each_ps(__m512 a, F f) {
  return as_ps(
      each(as_si(a), [&](__m256i x) { return _mm256_castps_si256(f(_mm256_castsi256_ps(x))); }));
}

static inline __m512 loadu_ps(const void* p) {
  __m512 a;
  __builtin_memcpy(&a, p, 64);
  return a;
}
static inline void storeu_ps(void* p, __m512 a) { __builtin_memcpy(p, &a, 64); }
static inline __m512i loadu_si512(const void* p) {
  __m512i a;
  __builtin_memcpy(&a, p, 64);
  return a;
}
static inline void storeu_si512(void* p, __m512i a) { __builtin_memcpy(p, &a, 64); }
static inline __m512i set1_epi32(int v) {
  return each(__m512i{}, [v](__m256i) { return _mm256_set1_epi32(v); });
}
static inline __m512i set1_epi8(char v) {
  return each(__m512i{}, [v](__m256i) { return _mm256_set1_epi8(v); });
}
static inline __m512 set1_ps(float v) {
  return each_ps(__m512{}, [v](__m256) { return _mm256_set1_ps(v); });
}
static inline __m512i broadcast_i32x4(__m128i a) {
  const __m256i b = _mm256_broadcastsi128_si256(a);
  return join(b, b);
}

static inline __m512 add_ps(__m512 a, __m512 b) { return a + b; }
static inline __m512 sub_ps(__m512 a, __m512 b) { return a - b; }
static inline __m512 mul_ps(__m512 a, __m512 b) { return a * b; }
static inline __m512 div_ps(__m512 a, __m512 b) { return a / b; }
static inline __m512 max_ps(__m512 a, __m512 b) {
  return each_ps(a, b, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
}
static inline __m512 min_ps(__m512 a, __m512 b) {
  return each_ps(a, b, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
}
static inline __m512 abs_ps(__m512 a) {
  return each_ps(a, [](__m256 x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
  });
}
static inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  const Halves x = halves(as_si(a)), y = halves(as_si(b)), z = halves(as_si(c));
  const auto one = [](__m256i p, __m256i q, __m256i r) {
    return _mm256_castps_si256(
        _mm256_fmadd_ps(_mm256_castsi256_ps(p), _mm256_castsi256_ps(q), _mm256_castsi256_ps(r)));
  };
  return as_ps(join(one(x.lo, y.lo, z.lo), one(x.hi, y.hi, z.hi)));
}
template <int Mode>
static inline __m512 roundscale_ps(__m512 a) {
  static_assert(Mode == (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  return each_ps(a, [](__m256 x) { return _mm256_round_ps(x, Mode); });
}
template <int Predicate>
static inline __mmask16 cmp_ps_mask(__m512 a, __m512 b) {
  const __m512 bits =
      each_ps(a, b, [](__m256 x, __m256 y) { return _mm256_cmp_ps(x, y, Predicate); });
  const Halves h = halves(as_si(bits));
  return (__mmask16)(_mm256_movemask_ps(_mm256_castsi256_ps(h.lo)) |
                     _mm256_movemask_ps(_mm256_castsi256_ps(h.hi)) << 8);
}
static inline __m512 mask_blend_ps(__mmask16 mask, __m512 zero, __m512 one) {
  for (int i = 0; i < 16; i++)
    if ((mask >> i & 1) != 0) zero[i] = one[i];
  return zero;
}
static inline __m512i cvtps_epi32(__m512 a) {
  return each(as_si(a), [](__m256i x) { return _mm256_cvtps_epi32(_mm256_castsi256_ps(x)); });
}
static inline __m512 cvtepi32_ps(__m512i a) {
  return as_ps(each(a, [](__m256i x) { return _mm256_castps_si256(_mm256_cvtepi32_ps(x)); }));
}
static inline __m512 cvtph_ps(__m256i a) {
  return as_ps(join(_mm256_castps_si256(_mm256_cvtph_ps(_mm256_castsi256_si128(a))),
                    _mm256_castps_si256(_mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)))));
}
static inline __m512i cvtepu16_epi32(__m256i a) {
  return join(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
              _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)));
}
static inline __m512i cvtepi8_epi32(__m128i a) {
  return join(_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)));
}
static inline __m512i cvtepu8_epi32(__m128i a) {
  return join(_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8)));
}
static inline __m128i cvtepi32_epi8(__m512i a) {
  int words[16];
  signed char bytes[16];
  __builtin_memcpy(words, &a, 64);
  for (int i = 0; i < 16; i++) bytes[i] = (signed char)words[i];
  return _mm_loadu_si128((const __m128i*)bytes);
}

static inline __m512i add_epi32(__m512i a, __m512i b) {
  return each(a, b, [](__m256i x, __m256i y) { return _mm256_add_epi32(x, y); });
}
static inline __m512i sub_epi32(__m512i a, __m512i b) {
  return each(a, b, [](__m256i x, __m256i y) { return _mm256_sub_epi32(x, y); });
}
static inline __m512i max_epi32(__m512i a, __m512i b) {
  return each(a, b, [](__m256i x, __m256i y) { return _mm256_max_epi32(x, y); });
}
static inline __m512i min_epi32(__m512i a, __m512i b) {
  return each(a, b, [](__m256i x, __m256i y) { return _mm256_min_epi32(x, y); });
}
static inline __m512i and_si512(__m512i a, __m512i b) { return a & b; }
static inline __m512i or_si512(__m512i a, __m512i b) { return a | b; }
static inline __m512i slli_epi32(__m512i a, int n) {
  return each(a, [n](__m256i x) { return _mm256_slli_epi32(x, n); });
}
static inline __m512i srli_epi32(__m512i a, int n) {
  return each(a, [n](__m256i x) { return _mm256_srli_epi32(x, n); });
}
static inline __m512i slli_epi16(__m512i a, int n) {
  return each(a, [n](__m256i x) { return _mm256_slli_epi16(x, n); });
}
static inline __m512i srli_epi16(__m512i a, int n) {
  return each(a, [n](__m256i x) { return _mm256_srli_epi16(x, n); });
}
static inline __m512i shuffle_epi8(__m512i a, __m512i b) {
  return each(a, b, [](__m256i x, __m256i y) { return _mm256_shuffle_epi8(x, y); });
}
static inline int reduce_add_epi32(__m512i a) {
  int words[16], sum = 0;
  __builtin_memcpy(words, &a, 64);
  for (int i = 0; i < 16; i++) sum += words[i];
  return sum;
}
// Four products of an unsigned and a signed byte into each word, exactly: no step saturates.
static inline __m512i dpbusd_epi32(__m512i sum, __m512i u, __m512i s) {
  const __m512i products = each(u, s, [](__m256i x, __m256i y) {
    const __m256i even = _mm256_set1_epi16(0xFF);
    const __m256i x0 = _mm256_and_si256(x, even), x1 = _mm256_srli_epi16(x, 8);
    const __m256i y0 = _mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8), y1 = _mm256_srai_epi16(y, 8);
    return _mm256_add_epi32(_mm256_madd_epi16(x0, y0), _mm256_madd_epi16(x1, y1));
  });
  return add_epi32(sum, products);
}

}  // namespace avx512_emulator

#define _mm512_abs_ps avx512_emulator::abs_ps
#define _mm512_add_epi32 avx512_emulator::add_epi32
#define _mm512_add_ps avx512_emulator::add_ps
#define _mm512_and_si512 avx512_emulator::and_si512
#define _mm512_broadcast_i32x4 avx512_emulator::broadcast_i32x4
#define _mm512_castsi512_ps avx512_emulator::as_ps
#define _mm512_cmp_ps_mask(a, b, predicate) avx512_emulator::cmp_ps_mask<predicate>(a, b)
#define _mm512_cvtepi32_epi8 avx512_emulator::cvtepi32_epi8
#define _mm512_cvtepi32_ps avx512_emulator::cvtepi32_ps
#define _mm512_cvtepi8_epi32 avx512_emulator::cvtepi8_epi32
#define _mm512_cvtepu16_epi32 avx512_emulator::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 avx512_emulator::cvtepu8_epi32
#define _mm512_cvtph_ps avx512_emulator::cvtph_ps
#define _mm512_cvtps_epi32 avx512_emulator::cvtps_epi32
#define _mm512_div_ps avx512_emulator::div_ps
#define _mm512_dpbusd_epi32 avx512_emulator::dpbusd_epi32
#define _mm512_fmadd_ps avx512_emulator::fmadd_ps
#define _mm512_loadu_ps avx512_emulator::loadu_ps
#define _mm512_loadu_si512 avx512_emulator::loadu_si512
#define _mm512_mask_blend_ps avx512_emulator::mask_blend_ps
#define _mm512_max_epi32 avx512_emulator::max_epi32
#define _mm512_max_ps avx512_emulator::max_ps
#define _mm512_min_epi32 avx512_emulator::min_epi32
#define _mm512_min_ps avx512_emulator::min_ps
#define _mm512_mul_ps avx512_emulator::mul_ps
#define _mm512_or_si512 avx512_emulator::or_si512
#define _mm512_reduce_add_epi32 avx512_emulator::reduce_add_epi32
#define _mm512_roundscale_ps(a, mode) avx512_emulator::roundscale_ps<mode>(a)
#define _mm512_set1_epi32 avx512_emulator::set1_epi32
#define _mm512_set1_epi8 avx512_emulator::set1_epi8
#define _mm512_set1_ps avx512_emulator::set1_ps
#define _mm512_shuffle_epi8 avx512_emulator::shuffle_epi8
#define _mm512_slli_epi16 avx512_emulator::slli_epi16
#define _mm512_slli_epi32 avx512_emulator::slli_epi32
#define _mm512_srli_epi16 avx512_emulator::srli_epi16
#define _mm512_srli_epi32 avx512_emulator::srli_epi32
#define _mm512_storeu_ps avx512_emulator::storeu_ps
#define _mm512_storeu_si512 avx512_emulator::storeu_si512
#define _mm512_sub_epi32 avx512_emulator::sub_epi32
#define _mm512_sub_ps avx512_emulator::sub_ps
