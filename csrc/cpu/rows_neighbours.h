// Rows that need their neighbours: blur and rotation. Part of rows_impl.cpp.
#pragma once

#include "../core/macros.h"
#include "rows.h"

namespace fastssl::cpu {
namespace {

using core::fused;

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

// A pixel of one channel, black outside.
FASTSSL_HD float pixel_or_black(const Rows& from, int c, int i, int j) {
  const bool inside = i >= 0 && j >= 0 && i < from.count && j < from.columns;
  return inside ? from.at(i, c)[j] : 0.0f;
}

// Whole part and rest of a coordinate that is not much below zero, without the library's floor.
FASTSSL_HD int floor_of(float v) {
  const int whole = int(v);
  return float(whole) > v ? whole - 1 : whole;
}

void rotate(const Rows& from, int i, core::RotateFilter filter, float cosine, float sine, const Rows& out) {
  const float middle = 0.5f * float(from.columns);
  const float y = float(i) + 0.5f - middle;
  for (int j = 0; j < from.columns; ++j) {
    const float x = float(j) + 0.5f - middle;
    // Turned back: clockwise, with y pointing down.
    const float source_x = fused(cosine, x, -(sine * y)) + middle;
    const float source_y = fused(sine, x, cosine * y) + middle;
    if (filter == core::RotateFilter::Nearest) {
      const int row = floor_of(source_y), column = floor_of(source_x);
      for (int c = 0; c < from.channels; ++c) out.at(0, c)[j] = pixel_or_black(from, c, row, column);
      continue;
    }
    const int row = floor_of(source_y - 0.5f), column = floor_of(source_x - 0.5f);
    const float down = source_y - 0.5f - float(row), right = source_x - 0.5f - float(column);
    for (int c = 0; c < from.channels; ++c) {
      const float a = pixel_or_black(from, c, row, column), b = pixel_or_black(from, c, row, column + 1);
      const float d = pixel_or_black(from, c, row + 1, column), e = pixel_or_black(from, c, row + 1, column + 1);
      const float above = fused(right, b - a, a), below = fused(right, e - d, d);
      out.at(0, c)[j] = fused(down, below - above, above);
    }
  }
}

}  // namespace
}  // namespace fastssl::cpu
