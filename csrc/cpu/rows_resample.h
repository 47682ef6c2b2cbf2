// Separable resampling, a block of as many rows at a time as a vector has lanes. Part of rows_impl.cpp.
//
// First down the columns, with the source's rows as they lie in memory; then the block is transposed, so that along the rows
// one weight serves a whole vector, and transposed back.
#pragma once

#include "lanes.h"
#include "rows.h"

namespace fastssl::cpu {
namespace {

constexpr int kChunk = 768;  // columns times channels that are summed at a time; a multiple of every vector

// sum over k of weight[k] * rows[k][i], ascending k, for n values. Taps go in groups whose sums stay in registers; the order
// of the additions does not depend on the grouping.
template <typename T, int K, bool kFirst>
FASTSSL_HD Vec vertical_at(const T* const* rows, const Vec (&weight)[K], int64_t i, const float* out) {
  Vec sum = kFirst ? weight[0] * load(rows[0] + i) : fused_lanes(weight[0], load(rows[0] + i), load(out + i));
  for (int k = 1; k < K; ++k) sum = fused_lanes(weight[k], load(rows[k] + i), sum);
  return sum;
}

template <typename T, int K, bool kFirst>
void vertical_group(const T* const* rows, const float* weight, int n, float* out) {
  if (n < kLanes) {
    for (int i = 0; i < n; ++i) {
      float sum = kFirst ? weight[0] * float(rows[0][i]) : core::fused(weight[0], float(rows[0][i]), out[i]);
      for (int k = 1; k < K; ++k) sum = core::fused(weight[k], float(rows[k][i]), sum);
      out[i] = sum;
    }
    return;
  }
  Vec w[K];
  for (int k = 0; k < K; ++k) w[k] = splat(weight[k]);
  // The last vector overlaps the one before it, and must be made of what was there before either was written.
  const Vec last = vertical_at<T, K, kFirst>(rows, w, n - kLanes, out);
  for (int i = 0; i + kLanes <= n; i += kLanes) save(out + i, vertical_at<T, K, kFirst>(rows, w, i, out));
  save(out + n - kLanes, last);
}

template <typename T, bool kFirst>
void vertical_some(const T* const* rows, const float* weight, int taps, int n, float* out) {
  switch (taps) {
    case 1: return vertical_group<T, 1, kFirst>(rows, weight, n, out);
    case 2: return vertical_group<T, 2, kFirst>(rows, weight, n, out);
    case 3: return vertical_group<T, 3, kFirst>(rows, weight, n, out);
    case 4: return vertical_group<T, 4, kFirst>(rows, weight, n, out);
    case 5: return vertical_group<T, 5, kFirst>(rows, weight, n, out);
    case 6: return vertical_group<T, 6, kFirst>(rows, weight, n, out);
    case 7: return vertical_group<T, 7, kFirst>(rows, weight, n, out);
    default: return vertical_group<T, 8, kFirst>(rows, weight, n, out);
  }
}

// One row of the result before the horizontal pass: n values from column x on.
template <typename T>
void vertical(const Resampling& crop, int row, int64_t x, int n, float* out) {
  const float* weight = crop.y.weight + int64_t(row) * crop.y.stride;
  const char* source = static_cast<const char*>(crop.pixels) + int64_t(crop.y.first[row]) * crop.stride;
  const int taps = crop.y.counts[row];
  for (int k = 0; k < taps; k += 8) {
    const int some = taps - k < 8 ? taps - k : 8;
    const T* rows[8];
    for (int j = 0; j < some; ++j) rows[j] = reinterpret_cast<const T*>(source + (k + j) * crop.stride) + x;
    if (k == 0) {
      vertical_some<T, true>(rows, weight, some, n, out);
    } else {
      vertical_some<T, false>(rows, weight + k, some, n, out);
    }
  }
}

// columns x channels vectors, one lane a row.
template <typename T>
void vertical_block(const Resampling& crop, int first, int count, float* tile, float* to) {
  const int n = crop.columns * crop.channels;
  for (int x = 0; x < n; x += kChunk) {
    const int width = n - x < kChunk ? n - x : kChunk;
    // A last, narrow chunk reaches back over the one before it, so that its rows are whole vectors.
    const int back = width < kLanes && x > 0 ? kLanes - width : 0;
    for (int l = 0; l < kLanes; ++l) {
      const int row = first + (l < count ? l : count - 1);
      float* out = tile + kLanes + int64_t(l) * (kChunk + kLanes) - back;
      vertical<T>(crop, crop.mirror_y ? crop.size - 1 - row : row, x - back, width + back, out);
    }
    for (int i = 0; i < width; i += kLanes) {
      Vec v[kLanes];
      for (int l = 0; l < kLanes; ++l) v[l] = load(tile + kLanes + int64_t(l) * (kChunk + kLanes) + i);
      transpose(v);
      for (int l = 0; l < kLanes; ++l) save(to + int64_t(x + i + l) * kLanes, v[l]);
    }
  }
}

// The sums of one output column: C channels from channel `c` on.
template <int C, int K>
FASTSSL_HD void horizontal_at(const float* from, int channels, const float* weight, int count, Vec (&sum)[C]) {
  const int64_t step = int64_t(channels) * kLanes;
  const int most = K ? K : count;
  const Vec w0 = splat(weight[0]);
  for (int c = 0; c < C; ++c) sum[c] = w0 * load(from + c * kLanes);
  for (int k = 1; k < most; ++k) {
    const Vec w = splat(weight[k]);
    for (int c = 0; c < C; ++c) sum[c] = fused_lanes(w, load(from + k * step + c * kLanes), sum[c]);
  }
}

template <int C, int K>
void horizontal_block(const Resampling& crop, int c0, int count, const float* from, const Rows& out) {
  const int size = crop.size, taps = crop.x.stride;
  for (int x = 0; x < size; x += kLanes) {
    Vec tile[C][kLanes];
    for (int j = 0; j < kLanes; ++j) {
      Vec sum[C];
      if (x + j < size) {
        const int i = crop.mirror_x ? size - 1 - (x + j) : x + j;
        const float* at = from + (int64_t(crop.x.first[i]) * crop.channels + c0) * kLanes;
        horizontal_at<C, K>(at, crop.channels, crop.x.weight + int64_t(i) * taps, taps, sum);
      } else {
        for (int c = 0; c < C; ++c) sum[c] = Vec{};  // padding
      }
      for (int c = 0; c < C; ++c) tile[c][j] = clamp_lanes(sum[c]);
    }
    for (int c = 0; c < C; ++c) {
      if (crop.transposed) {
        for (int j = 0; j < kLanes && x + j < size; ++j) save(out.at(x + j, c0 + c), tile[c][j]);
      } else {
        transpose(tile[c]);
        for (int l = 0; l < count; ++l) save(out.at(l, c0 + c) + x, tile[c][l]);
      }
    }
  }
}

template <int C>
void horizontal(const Resampling& crop, int c0, int count, const float* from, const Rows& out) {
  switch (crop.x.stride) {
    case 1: return horizontal_block<C, 1>(crop, c0, count, from, out);
    case 2: return horizontal_block<C, 2>(crop, c0, count, from, out);
    case 3: return horizontal_block<C, 3>(crop, c0, count, from, out);
    case 4: return horizontal_block<C, 4>(crop, c0, count, from, out);
    case 5: return horizontal_block<C, 5>(crop, c0, count, from, out);
    case 6: return horizontal_block<C, 6>(crop, c0, count, from, out);
    case 7: return horizontal_block<C, 7>(crop, c0, count, from, out);
    case 8: return horizontal_block<C, 8>(crop, c0, count, from, out);
    default: return horizontal_block<C, 0>(crop, c0, count, from, out);
  }
}

constexpr int64_t kTile = kLanes + int64_t(kLanes) * (kChunk + kLanes);

int64_t resample_scratch(int columns, int channels) { return kTile + (int64_t(columns) * channels + kChunk) * kLanes; }

void resample(const Resampling& crop, int first, int count, float* scratch, const Rows& out) {
  float* columns = scratch + kTile;
  switch (crop.type) {
    case PixelType::UInt8: vertical_block<uint8_t>(crop, first, count, scratch, columns); break;
    case PixelType::UInt16: vertical_block<uint16_t>(crop, first, count, scratch, columns); break;
    case PixelType::Float32: vertical_block<float>(crop, first, count, scratch, columns); break;
  }
  if (crop.channels == 3) return horizontal<3>(crop, 0, count, columns, out);
  for (int c = 0; c < crop.channels; ++c) horizontal<1>(crop, c, count, columns, out);
}

}  // namespace
}  // namespace fastssl::cpu
