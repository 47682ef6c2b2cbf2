// Pixels to floats, and floats to the types of a batch. Part of rows_impl.cpp.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../core/macros.h"
#include "rows.h"

namespace fastssl::cpu {
namespace {

template <typename T>
void load_as(const void* row, float unit, int columns, int channels, float* out, int64_t out_channel) {
  const T* from = static_cast<const T*>(row);
  for (int c = 0; c < channels; ++c) {
    float* __restrict to = out + c * out_channel;
    for (int x = 0; x < columns; ++x) to[x] = float(from[int64_t(x) * channels + c]) * unit;
  }
}

void load_row(const void* row, PixelType type, int columns, int channels, float* out, int64_t out_channel) {
  switch (type) {
    case PixelType::UInt8: return load_as<uint8_t>(row, 1.0f / 255, columns, channels, out, out_channel);
    case PixelType::UInt16: return load_as<uint16_t>(row, 1.0f / 65535, columns, channels, out, out_channel);
    case PixelType::Float32: return load_as<float>(row, 1.0f, columns, channels, out, out_channel);
  }
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
FASTSSL_HD uint8_t to_uint8(float v) { return uint8_t(int32_t(core::fused(v, 255.0f, 0.5f))); }

template <typename T, T (*kCast)(float)>
FASTSSL_HD void cast_row(const float* __restrict from, float scale, float bias, int n, T* __restrict to) {
  for (int x = 0; x < n; ++x) to[x] = kCast(core::fused(from[x], scale, bias));
}

template <typename T, T (*kCast)(float)>
FASTSSL_HD void interleave_three(const Rows& rows, int i, const float* scale, const float* bias, T* __restrict to) {
  const float* __restrict r = rows.at(i, 0);
  const float* __restrict g = rows.at(i, 1);
  const float* __restrict b = rows.at(i, 2);
  for (int x = 0; x < rows.columns; ++x) {
    to[3 * x + 0] = kCast(core::fused(r[x], scale[0], bias[0]));
    to[3 * x + 1] = kCast(core::fused(g[x], scale[1], bias[1]));
    to[3 * x + 2] = kCast(core::fused(b[x], scale[2], bias[2]));
  }
}

template <typename T, T (*kCast)(float)>
void store_as(const Rows& rows, const float* scale, const float* bias, void* out, int64_t line, int64_t plane,
              bool interleaved) {
  for (int i = 0; i < rows.count; ++i) {
    char* to = static_cast<char*>(out) + i * line;
    if (!interleaved) {
      for (int c = 0; c < rows.channels; ++c) {
        cast_row<T, kCast>(rows.at(i, c), scale[c], bias[c], rows.columns, reinterpret_cast<T*>(to + c * plane));
      }
    } else if (rows.channels == 3) {
      interleave_three<T, kCast>(rows, i, scale, bias, reinterpret_cast<T*>(to));
    } else {
      for (int c = 0; c < rows.channels; ++c) {
        const float* from = rows.at(i, c);
        T* at = reinterpret_cast<T*>(to) + c;
        for (int x = 0; x < rows.columns; ++x)
          at[int64_t(x) * rows.channels] = kCast(core::fused(from[x], scale[c], bias[c]));
      }
    }
  }
}

void store(const Rows& rows, const float* scale, const float* bias, DType dtype, void* out, int64_t line, int64_t plane,
           bool interleaved) {
  switch (dtype) {
    case DType::Float32: return store_as<float, to_float32>(rows, scale, bias, out, line, plane, interleaved);
    case DType::Float16: return store_as<uint16_t, to_float16>(rows, scale, bias, out, line, plane, interleaved);
    case DType::BFloat16: return store_as<uint16_t, to_bfloat16>(rows, scale, bias, out, line, plane, interleaved);
    case DType::UInt8: return store_as<uint8_t, to_uint8>(rows, scale, bias, out, line, plane, interleaved);
  }
}

}  // namespace
}  // namespace fastssl::cpu
