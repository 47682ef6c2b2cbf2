#include "rows.h"

#include <cstdlib>
#include <cstring>

#if defined(FASTSSL_X86_LEVELS)
#include <cpuid.h>
#endif

namespace fastssl::cpu {

extern const RowKernels rows_generic;
#if defined(FASTSSL_X86_LEVELS)
extern const RowKernels rows_v3;
extern const RowKernels rows_v4;
#endif

namespace {

#if defined(FASTSSL_X86_LEVELS)
// Not by __builtin_cpu_supports, which knows neither in clang 14.
bool has_f16c_and_lzcnt() {
  unsigned a, b, c, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  return f16c && __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 5);
}
#endif

const RowKernels& choose() {
#if defined(FASTSSL_X86_LEVELS)
  const char* asked = std::getenv("FASTSSL_SIMD");
  const bool generic = asked && std::strcmp(asked, "generic") == 0;
  const bool v3 = asked && std::strcmp(asked, "v3") == 0;
  __builtin_cpu_init();
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("bmi") && has_f16c_and_lzcnt();
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512cd");
  if (has_v4 && !generic && !v3) return rows_v4;
  if (has_v3 && !generic) return rows_v3;
#endif
  return rows_generic;
}

}  // namespace

const RowKernels& row_kernels() {
  static const RowKernels& chosen = choose();
  return chosen;
}

}  // namespace fastssl::cpu
