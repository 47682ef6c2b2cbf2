// Rows that need their neighbours: blur and rotation. Part of rows_impl.cpp.
#pragma once

#include "../core/macros.h"
#include "../core/rotate.h"
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

void rotate(const Rows& from, int i, core::RotateFilter filter, float cosine, float sine, const Rows& out) {
  for (int j = 0; j < from.columns; ++j) {
    const core::Turned at = core::turned(i, j, from.columns, filter, cosine, sine);
    for (int c = 0; c < from.channels; ++c) {
      // Black outside.
      out.at(0, c)[j] = core::sample(at, filter, [&](int y, int x) {
        return y >= 0 && x >= 0 && y < from.count && x < from.columns ? from.at(y, c)[x] : 0.0f;
      });
    }
  }
}

}  // namespace
}  // namespace fastssl::cpu
