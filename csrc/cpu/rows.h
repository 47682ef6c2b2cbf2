// The loops over rows, compiled once for every instruction set and chosen once at load.
//
// All arithmetic is that of core/; here is only the order of memory. Every instruction set gives the same bits, because
// each multiply-add is written as one and nothing else may be contracted.
#pragma once

#include <cstdint>

#include "../core/image.h"
#include "../core/plan.h"

namespace fastssl::cpu {

using core::DType;
using core::dtype_size;
using core::pixel_size;
using core::PixelType;

// Rows of floats: channel c of row i begins at data + i * row + c * channel.
struct Rows {
  float* data;
  int64_t row, channel;
  int count, columns, channels;

  float* at(int i, int c) const { return data + i * row + c * channel; }
  Rows part(int first, int n) const { return {data + first * row, row, channel, n, columns, channels}; }
};

// Rows are padded to a multiple of this many floats, so that whole vectors may be written everywhere.
constexpr int kRowPadding = 16;
constexpr int padded(int columns) { return (columns + kRowPadding - 1) / kRowPadding * kRowPadding; }

// Taps of every output of an axis: output i sums counts[i] weights from weight + i * stride, over sources from first[i].
struct TapTable {
  const int32_t* first;
  const int32_t* counts;
  const float* weight;
  int32_t stride;
};

// A resampled crop. The horizontal taps all have x.stride weights, some of them 0: a number that changed from pixel to pixel
// would be mispredicted at every other one.
struct Resampling {
  const void* pixels;  // of source row 0 and source column x_low; y.first and x.first count from there
  int64_t stride;  // bytes
  PixelType type;
  int channels;  // interleaved
  int columns;  // of the source that x uses
  TapTable x, y;
  int size;
  bool mirror_x, mirror_y, transposed;
};

struct RowKernels {
  const char* name;
  // How many rows resample() makes at a time.
  int lanes;
  // Floats of scratch that resample() needs for so many source columns and channels.
  int64_t (*resample_scratch)(int columns, int channels);
  // Rows first to first + count - 1 of the resampled crop, count <= lanes, clamped to [0, 1]; `out` is where row `first` goes.
  // Transposed: they become columns, and `out` is where row 0 and column `first` go. Writes up to the padding.
  void (*resample)(const Resampling& crop, int first, int count, float* scratch, const Rows& out);
  // Pixels as they are, to floats; `row` is a source row.
  void (*load)(const void* row, PixelType type, int columns, int channels, float* out, int64_t out_channel);
  // Any number of channels.
  void (*brightness)(const Rows& rows, float factor);
  // Three channels.
  void (*contrast)(const Rows& rows, float factor, float mean);
  void (*saturation)(const Rows& rows, float factor);
  void (*hue)(const Rows& rows, float turn);
  void (*grayscale)(const Rows& rows);
  // Sum of core::luma_fixed.
  int64_t (*luma_sum)(const Rows& rows);
  // Any number of channels.
  void (*solarize)(const Rows& rows, float threshold);
  void (*posterize)(const Rows& rows, float step);
  // out[i] = weight[0] * rows[radius][i] + sum over k of weight[k] * (rows[radius - k][i] + rows[radius + k][i]).
  void (*blur_vertical)(const float* const* rows, const float* weight, int radius, int n, float* out);
  // The same along a row that has `radius` more floats on either side.
  void (*blur_horizontal)(const float* row, const float* weight, int radius, int n, float* out);
  // One row of a rotated view. `from` is all of the view; output pixel j of row i lies at (j + 0.5 - middle, i + 0.5 - middle).
  void (*rotate)(const Rows& from, int i, core::RotateFilter filter, float cosine, float sine, const Rows& out);
  // scale * v + bias a channel, cast, written as planes `plane` bytes apart or interleaved. `line` bytes from row to row.
  void (*store)(const Rows& rows, const float* scale, const float* bias, DType dtype, void* out, int64_t line,
                int64_t plane, bool interleaved);
};

// The kernels for this machine; the environment variable FASTSSL_SIMD (generic, v3, v4) asks for fewer.
const RowKernels& row_kernels();

}  // namespace fastssl::cpu
