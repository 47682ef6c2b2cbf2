// What lets one source serve the CPU at several instruction sets and the GPU.
//
// Everything in core/ is `static` and forced inline: the same header is compiled at several instruction
// sets into one library, and an inline function with external linkage would be merged by the linker, so
// that a machine without AVX-512 could end up running the AVX-512 copy.
#pragma once

#if defined(__CUDACC__)
#define FASTSSL_HD __host__ __device__ static __forceinline__
#elif defined(__GNUC__)
#define FASTSSL_HD [[maybe_unused]] static inline __attribute__((always_inline))
#else
#define FASTSSL_HD [[maybe_unused]] static inline
#endif

namespace fastssl::core {

// a * b + c with one rounding. Contraction is off everywhere (-ffp-contract=off, -fmad=false), so this is
// the only place where a product and a sum are fused: CPU and GPU then round at the same points.
FASTSSL_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}
FASTSSL_HD double fused(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

template <typename T>
FASTSSL_HD T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
FASTSSL_HD T larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
FASTSSL_HD T clamp01(T v) {
  return smaller(larger(v, T(0)), T(1));
}

}  // namespace fastssl::core
