// Pixels to floats, and floats to the types of a batch. Part of rows_impl.cpp.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../core/cast.h"
#include "../core/macros.h"
#include "lanes.h"
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

using core::to_bfloat16;
using core::to_float16;
using core::to_float32;
using core::to_uint8;

template <typename T, T (*kCast)(float)>
FASTSSL_HD void cast_row(const float* __restrict from, float scale, float bias, int n, T* __restrict to) {
  for (int x = 0; x < n; ++x) to[x] = kCast(core::fused(from[x], scale, bias));
}

// Note [Stores past the caches]
// A large view is written past the caches: its lines would be read from memory only to be overwritten, and a batch of such
// views fits into no cache, so that who reads it finds it in memory either way. Saves a third of the time that writing takes.
constexpr int64_t kStreamed = int64_t(1) << 17;  // bytes of a view from which on it is so

#if defined(__AVX512F__)
constexpr int kLine = 64;
FASTSSL_HD void stream(float* to, Vec v) { _mm512_stream_ps(to, v); }
FASTSSL_HD void stream_end() { _mm_sfence(); }
#elif defined(__AVX2__)
constexpr int kLine = 32;
FASTSSL_HD void stream(float* to, Vec v) { _mm256_stream_ps(to, v); }
FASTSSL_HD void stream_end() { _mm_sfence(); }
#else
constexpr int kLine = 0;  // never
FASTSSL_HD void stream(float* to, Vec v) { save(to, v); }
FASTSSL_HD void stream_end() {}
#endif

bool is_streamed(const void* to, int64_t bytes, int64_t view_bytes) {
  return kLine != 0 && view_bytes >= kStreamed && bytes % (kLine ? kLine : 1) == 0 &&
         reinterpret_cast<uintptr_t>(to) % (kLine ? kLine : 1) == 0;
}

void stream_floats(const float* from, float scale, float bias, int n, float* to) {
  const Vec s = splat(scale), b = splat(bias);
  for (int x = 0; x < n; x += kLanes) stream(to + x, fused_lanes(load(from + x), s, b));
}

void stream_bytes(const void* from, int64_t bytes, void* to) {
  const float* in = static_cast<const float*>(from);
  float* out = static_cast<float*>(to);
  for (int64_t i = 0; i < bytes / 4; i += kLanes) stream(out + i, load(in + i));
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
void interleave_any(const Rows& rows, int i, const float* scale, const float* bias, T* to) {
  for (int c = 0; c < rows.channels; ++c) {
    const float* from = rows.at(i, c);
    T* at = to + c;
    for (int x = 0; x < rows.columns; ++x)
      at[int64_t(x) * rows.channels] = kCast(core::fused(from[x], scale[c], bias[c]));
  }
}

template <typename T, T (*kCast)(float)>
void store_planes(const Rows& rows, const float* scale, const float* bias, char* out, int64_t line, int64_t plane) {
  constexpr int kPiece = 1024;
  const bool streamed = is_streamed(out, line | plane, plane * rows.channels);
  for (int i = 0; i < rows.count; ++i) {
    for (int c = 0; c < rows.channels; ++c) {
      const float* from = rows.at(i, c);
      T* to = reinterpret_cast<T*>(out + i * line + c * plane);
      if (!streamed || rows.columns * int64_t(sizeof(T)) != line) {
        cast_row<T, kCast>(from, scale[c], bias[c], rows.columns, to);
      } else if constexpr (sizeof(T) == sizeof(float)) {
        stream_floats(from, scale[c], bias[c], rows.columns, to);
      } else {
        for (int x = 0; x < rows.columns; x += kPiece) {
          T piece[kPiece];
          const int n = rows.columns - x < kPiece ? rows.columns - x : kPiece;
          cast_row<T, kCast>(from + x, scale[c], bias[c], n, piece);
          stream_bytes(piece, n * int64_t(sizeof(T)), to + x);
        }
      }
    }
  }
  if (streamed) stream_end();
}

template <typename T, T (*kCast)(float)>
void store_as(const Rows& rows, const float* scale, const float* bias, void* out, int64_t line, int64_t plane,
              bool interleaved) {
  char* to = static_cast<char*>(out);
  if (!interleaved) return store_planes<T, kCast>(rows, scale, bias, to, line, plane);
  for (int i = 0; i < rows.count; ++i) {
    if (rows.channels == 3) {
      interleave_three<T, kCast>(rows, i, scale, bias, reinterpret_cast<T*>(to + i * line));
    } else {
      interleave_any<T, kCast>(rows, i, scale, bias, reinterpret_cast<T*>(to + i * line));
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
