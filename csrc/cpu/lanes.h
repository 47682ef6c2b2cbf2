// Vectors of as many floats as the instruction set has, for the loops that the compiler does not find by itself.
//
// Part of rows_impl.cpp.
#pragma once

#if defined(__AVX512F__) || defined(__AVX2__)
// GCC 12 takes its own header's undefined registers for mistakes (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
#include <stdint.h>
#include <string.h>

#include "../core/macros.h"

namespace fastssl::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));

FASTSSL_HD Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof(v));
  return v;
}
FASTSSL_HD void save(float* p, Vec v) { memcpy(p, &v, sizeof(v)); }

#if defined(__AVX512F__)
FASTSSL_HD Vec splat(float x) { return _mm512_set1_ps(x); }
FASTSSL_HD Vec fused_lanes(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
FASTSSL_HD Vec clamp_lanes(Vec v) { return _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), splat(1.0f)); }
FASTSSL_HD Vec load(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
FASTSSL_HD Vec load(const uint16_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
#elif defined(__AVX2__)
FASTSSL_HD Vec splat(float x) { return _mm256_set1_ps(x); }
FASTSSL_HD Vec fused_lanes(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
FASTSSL_HD Vec clamp_lanes(Vec v) { return _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), splat(1.0f)); }
FASTSSL_HD Vec load(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
FASTSSL_HD Vec load(const uint16_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#else
FASTSSL_HD Vec splat(float x) { return Vec{x, x, x, x}; }
FASTSSL_HD Vec fused_lanes(Vec a, Vec b, Vec c) {
  Vec out;
  for (int l = 0; l < kLanes; ++l) out[l] = core::fused(a[l], b[l], c[l]);
  return out;
}
FASTSSL_HD Vec clamp_lanes(Vec v) {
  for (int l = 0; l < kLanes; ++l) v[l] = core::clamp01(v[l]);
  return v;
}
template <typename T>
FASTSSL_HD Vec load(const T* p) {
  return Vec{float(p[0]), float(p[1]), float(p[2]), float(p[3])};
}
#endif

// Transposes a square of vectors.
FASTSSL_HD void transpose(Vec (&v)[kLanes]) {
  // By pairs and then by fours within each part of four lanes: afterwards t[4 i + j], part p, is column 4 p + j of rows
  // 4 i to 4 i + 3.
  Vec t[kLanes];
#if defined(__AVX512F__)
#define FASTSSL_MIX(a, b, i, j, k, l)                                                                               \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, \
                          k + 12, l + 12)
#elif defined(__AVX2__)
#define FASTSSL_MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
#else
#define FASTSSL_MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#endif
  for (int i = 0; i < kLanes; i += 4) {
    const Vec low0 = FASTSSL_MIX(v[i], v[i + 1], 0, kLanes, 1, kLanes + 1);
    const Vec high0 = FASTSSL_MIX(v[i], v[i + 1], 2, kLanes + 2, 3, kLanes + 3);
    const Vec low1 = FASTSSL_MIX(v[i + 2], v[i + 3], 0, kLanes, 1, kLanes + 1);
    const Vec high1 = FASTSSL_MIX(v[i + 2], v[i + 3], 2, kLanes + 2, 3, kLanes + 3);
    t[i] = FASTSSL_MIX(low0, low1, 0, 1, kLanes, kLanes + 1);
    t[i + 1] = FASTSSL_MIX(low0, low1, 2, 3, kLanes + 2, kLanes + 3);
    t[i + 2] = FASTSSL_MIX(high0, high1, 0, 1, kLanes, kLanes + 1);
    t[i + 3] = FASTSSL_MIX(high0, high1, 2, 3, kLanes + 2, kLanes + 3);
  }
#undef FASTSSL_MIX
#if defined(__AVX512F__)
  for (int j = 0; j < 4; ++j) {
    const __m512 even0 = _mm512_shuffle_f32x4(t[j], t[j + 4], 0x88), odd0 = _mm512_shuffle_f32x4(t[j], t[j + 4], 0xDD);
    const __m512 even1 = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0xDD);
    v[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    v[j + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    v[j + 8] = _mm512_shuffle_f32x4(even0, even1, 0xDD);
    v[j + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xDD);
  }
#elif defined(__AVX2__)
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm256_permute2f128_ps(t[j], t[j + 4], 0x20);
    v[j + 4] = _mm256_permute2f128_ps(t[j], t[j + 4], 0x31);
  }
#else
  for (int j = 0; j < 4; ++j) v[j] = t[j];
#endif
}

}  // namespace
}  // namespace fastssl::cpu
