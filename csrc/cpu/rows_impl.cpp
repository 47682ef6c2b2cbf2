// Compiled several times, with other flags and another FASTSSL_ROWS each time; see CMakeLists.txt and rows.cpp.
//
// Plain loops that the compiler vectorizes. Nothing here may have external linkage but the table, and no inline function
// of the standard library may be called: the linker would keep one copy of it, at any instruction set.
#include <stdint.h>
#include <string.h>

#include "../core/colour.h"
#include "../core/macros.h"
#include "rows.h"

namespace fastssl::cpu {
namespace {

using core::fused;
using core::Rgb;

// Taps are summed in groups whose sums stay in registers; the order of the additions does not depend on the grouping.
template <int K, bool kFirst>
void vertical_group(const uint8_t* const* rows, const float* weight, int n, float* __restrict out) {
  for (int i = 0; i < n; ++i) {
    float sum = kFirst ? weight[0] * float(rows[0][i]) : fused(weight[0], float(rows[0][i]), out[i]);
    for (int k = 1; k < K; ++k) sum = fused(weight[k], float(rows[k][i]), sum);
    out[i] = sum;
  }
}

template <bool kFirst>
void vertical_some(const uint8_t* const* rows, const float* weight, int taps, int n, float* out) {
  switch (taps) {
    case 1: return vertical_group<1, kFirst>(rows, weight, n, out);
    case 2: return vertical_group<2, kFirst>(rows, weight, n, out);
    case 3: return vertical_group<3, kFirst>(rows, weight, n, out);
    case 4: return vertical_group<4, kFirst>(rows, weight, n, out);
    case 5: return vertical_group<5, kFirst>(rows, weight, n, out);
    default: return vertical_group<6, kFirst>(rows, weight, n, out);
  }
}

void vertical(const uint8_t* const* rows, const float* weight, int taps, int n, float* out) {
  vertical_some<true>(rows, weight, taps, n, out);
  for (int k = 6; k < taps; k += 6) vertical_some<false>(rows + k, weight + k, taps - k, n, out);
}

// Four lanes: red, green, blue, and the next pixel's red, which nobody reads.
typedef float Lanes __attribute__((vector_size(16)));

FASTSSL_HD Lanes load_lanes(const float* p) {
  Lanes v;
  memcpy(&v, p, sizeof(v));
  return v;
}

FASTSSL_HD Lanes fused_lanes(float w, Lanes v, Lanes sum) {
  Lanes out;
  for (int l = 0; l < 4; ++l) out[l] = fused(w, v[l], sum[l]);
  return out;
}

template <int K>
FASTSSL_HD Lanes sum_taps(const float* p, const float* w) {
  Lanes sum = w[0] * load_lanes(p);
  for (int k = 1; k < K; ++k) sum = fused_lanes(w[k], load_lanes(p + 3 * k), sum);
  return sum;
}

FASTSSL_HD void deinterleave(const float* __restrict from, int size, const Planes& out) {
  float* __restrict r = out.r;
  float* __restrict g = out.g;
  float* __restrict b = out.b;
  for (int x = 0; x < size; ++x) {
    r[x] = core::clamp01(from[4 * x + 0]);
    g[x] = core::clamp01(from[4 * x + 1]);
    b[x] = core::clamp01(from[4 * x + 2]);
  }
}

template <int K>
void horizontal_taps(const float* row, const TapTable& taps, int size, float* to, int step) {
  const int32_t* first = taps.first;
  const float* w = taps.weight;
  const int count = K ? K : taps.count;
  for (int x = 0; x < size; ++x, to += step, w += count) {
    const float* p = row + 3 * int64_t(first[x]);
    Lanes sum = sum_taps<K ? K : 8>(p, w);
    for (int k = 8; k < count; ++k) sum = fused_lanes(w[k], load_lanes(p + 3 * k), sum);
    memcpy(to, &sum, sizeof(sum));
  }
}

void horizontal(const float* row, const TapTable& taps, int size, bool mirror, float* scratch, const Planes& out) {
  float* to = mirror ? scratch + 4 * int64_t(size - 1) : scratch;
  const int step = mirror ? -4 : 4;
  switch (taps.count) {
    case 1: horizontal_taps<1>(row, taps, size, to, step); break;
    case 2: horizontal_taps<2>(row, taps, size, to, step); break;
    case 3: horizontal_taps<3>(row, taps, size, to, step); break;
    case 4: horizontal_taps<4>(row, taps, size, to, step); break;
    case 5: horizontal_taps<5>(row, taps, size, to, step); break;
    case 6: horizontal_taps<6>(row, taps, size, to, step); break;
    case 7: horizontal_taps<7>(row, taps, size, to, step); break;
    case 8: horizontal_taps<8>(row, taps, size, to, step); break;
    default: horizontal_taps<0>(row, taps, size, to, step);
  }
  deinterleave(scratch, size, out);
}

template <typename F>
FASTSSL_HD void each(const Planes& row, int n, F f) {
  float* __restrict r = row.r;
  float* __restrict g = row.g;
  float* __restrict b = row.b;
  for (int i = 0; i < n; ++i) {
    const Rgb<float> p = f(Rgb<float>{r[i], g[i], b[i]});
    r[i] = p.r;
    g[i] = p.g;
    b[i] = p.b;
  }
}

void brightness(const Planes& row, int n, float factor) {
  each(row, n, [=](Rgb<float> p) { return core::brightness(p, factor); });
}
void contrast(const Planes& row, int n, float factor, float mean) {
  each(row, n, [=](Rgb<float> p) { return core::contrast(p, factor, mean); });
}
void saturation(const Planes& row, int n, float factor) {
  each(row, n, [=](Rgb<float> p) { return core::saturation(p, factor); });
}
void hue(const Planes& row, int n, float turn) {
  each(row, n, [=](Rgb<float> p) { return core::hue(p, turn); });
}
void grayscale(const Planes& row, int n) {
  each(row, n, [](Rgb<float> p) {
    const float l = core::luma(p);
    return Rgb<float>{l, l, l};
  });
}
void solarize(const Planes& row, int n, float threshold) {
  each(row, n, [=](Rgb<float> p) {
    return Rgb<float>{core::solarize(p.r, threshold), core::solarize(p.g, threshold), core::solarize(p.b, threshold)};
  });
}

int64_t luma_sum(const Planes& row, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; ++i) sum += core::luma_fixed(core::luma(Rgb<float>{row.r[i], row.g[i], row.b[i]}));
  return sum;
}

template <int K, bool kFirst>
void blur_vertical_group(const float* const* up, const float* const* down, const float* middle, const float* weight,
                         int n, float* __restrict out) {
  for (int i = 0; i < n; ++i) {
    float sum = kFirst ? weight[0] * middle[i] : out[i];
    for (int k = 1; k <= K; ++k) sum = fused(weight[k], up[-k][i] + down[k][i], sum);
    out[i] = sum;
  }
}

template <bool kFirst>
void blur_vertical_some(const float* const* up, const float* const* down, const float* middle, const float* weight,
                        int taps, int n, float* out) {
  switch (taps) {
    case 0: return blur_vertical_group<0, kFirst>(up, down, middle, weight, n, out);
    case 1: return blur_vertical_group<1, kFirst>(up, down, middle, weight, n, out);
    case 2: return blur_vertical_group<2, kFirst>(up, down, middle, weight, n, out);
    case 3: return blur_vertical_group<3, kFirst>(up, down, middle, weight, n, out);
    default: return blur_vertical_group<4, kFirst>(up, down, middle, weight, n, out);
  }
}

void blur_vertical(const float* const* rows, const float* weight, int radius, int n, float* out) {
  blur_vertical_some<true>(rows + radius, rows + radius, rows[radius], weight, radius, n, out);
  for (int k = 4; k < radius; k += 4) {
    blur_vertical_some<false>(rows + radius - k, rows + radius + k, nullptr, weight + k, radius - k, n, out);
  }
}

template <int K, bool kFirst>
void blur_horizontal_group(const float* __restrict up, const float* __restrict down, const float* weight, int n,
                           float* __restrict out) {
  for (int i = 0; i < n; ++i) {
    float sum = kFirst ? weight[0] * up[i] : out[i];
    for (int k = 1; k <= K; ++k) sum = fused(weight[k], up[i - k] + down[i + k], sum);
    out[i] = sum;
  }
}

template <bool kFirst>
void blur_horizontal_some(const float* up, const float* down, const float* weight, int taps, int n, float* out) {
  switch (taps) {
    case 0: return blur_horizontal_group<0, kFirst>(up, down, weight, n, out);
    case 1: return blur_horizontal_group<1, kFirst>(up, down, weight, n, out);
    case 2: return blur_horizontal_group<2, kFirst>(up, down, weight, n, out);
    case 3: return blur_horizontal_group<3, kFirst>(up, down, weight, n, out);
    default: return blur_horizontal_group<4, kFirst>(up, down, weight, n, out);
  }
}

void blur_horizontal(const float* row, const float* weight, int radius, int n, float* out) {
  blur_horizontal_some<true>(row, row, weight, radius, n, out);
  for (int k = 4; k < radius; k += 4) blur_horizontal_some<false>(row - k, row + k, weight + k, radius - k, n, out);
}

// Round to nearest, ties to even, as torch casts. No NaN comes here.
FASTSSL_HD uint16_t to_bfloat16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return uint16_t((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
// IEEE 754 binary16, round to nearest, ties to even, by integers: not every compiler has the type.
FASTSSL_HD uint16_t to_float16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Normal: rounded at bit 13, the exponent's bias changed from 127 to 15; what is too large becomes infinity.
  const uint32_t normal = ((magnitude + 0xFFFu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  // Subnormal: adding 2^-1 lets the float's own addition round at the right bit.
  float shifted;
  memcpy(&shifted, &magnitude, sizeof(shifted));
  shifted += 0.5f;
  uint32_t small;
  memcpy(&small, &shifted, sizeof(small));
  small -= 0x3F000000u;
  const uint32_t finite = magnitude < 0x38800000u ? small : normal;
  return uint16_t(sign | (magnitude >= 0x477FF000u ? 0x7C00u : finite));
}
FASTSSL_HD float to_float32(float v) { return v; }
// Rounds 255 v to nearest; v is in [0, 1] because uint8 is never normalized.
FASTSSL_HD uint8_t to_uint8(float v) { return uint8_t(int32_t(fused(v, 255.0f, 0.5f))); }

template <typename T, T (*kCast)(float)>
void store_as(const Planes& row, int n, const float scale[3], const float bias[3], void* r, void* g, void* b,
              bool interleaved) {
  const float* __restrict from[3] = {row.r, row.g, row.b};
  void* to[3] = {r, g, b};
  if (!interleaved) {
    for (int c = 0; c < 3; ++c) {
      T* __restrict out = static_cast<T*>(to[c]);
      const float* __restrict in = from[c];
      const float s = scale[c], o = bias[c];
      for (int i = 0; i < n; ++i) out[i] = kCast(fused(in[i], s, o));
    }
    return;
  }
  T* __restrict out = static_cast<T*>(r);
  for (int i = 0; i < n; ++i) {
    out[3 * i + 0] = kCast(fused(row.r[i], scale[0], bias[0]));
    out[3 * i + 1] = kCast(fused(row.g[i], scale[1], bias[1]));
    out[3 * i + 2] = kCast(fused(row.b[i], scale[2], bias[2]));
  }
}

void store(const Planes& row, int n, const float scale[3], const float bias[3], DType dtype, void* r, void* g, void* b,
           bool interleaved) {
  switch (dtype) {
    case DType::Float32: return store_as<float, to_float32>(row, n, scale, bias, r, g, b, interleaved);
    case DType::Float16: return store_as<uint16_t, to_float16>(row, n, scale, bias, r, g, b, interleaved);
    case DType::BFloat16: return store_as<uint16_t, to_bfloat16>(row, n, scale, bias, r, g, b, interleaved);
    case DType::UInt8: return store_as<uint8_t, to_uint8>(row, n, scale, bias, r, g, b, interleaved);
  }
}

}  // namespace

#define FASTSSL_TEXT_(x) #x
#define FASTSSL_TEXT(x) FASTSSL_TEXT_(x)
#define FASTSSL_TABLE_(x) rows_##x
#define FASTSSL_TABLE(x) FASTSSL_TABLE_(x)

extern const RowKernels FASTSSL_TABLE(FASTSSL_ROWS);
const RowKernels FASTSSL_TABLE(FASTSSL_ROWS) = {FASTSSL_TEXT(FASTSSL_ROWS),
                                                vertical,
                                                horizontal,
                                                brightness,
                                                contrast,
                                                saturation,
                                                hue,
                                                grayscale,
                                                solarize,
                                                luma_sum,
                                                blur_vertical,
                                                blur_horizontal,
                                                store};

}  // namespace fastssl::cpu
