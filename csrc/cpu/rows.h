// The loops over one row of a view, compiled once for every instruction set and chosen once at load.
//
// A row of a view is three planes of n floats. All arithmetic is that of core/; here is only the order of memory. Every
// instruction set gives the same bits, because each multiply-add is written as one and nothing else may be contracted.
#pragma once

#include <cstdint>

namespace fastssl::cpu {

enum class DType : int32_t { Float32, Float16, BFloat16, UInt8 };

constexpr int64_t dtype_size(DType dtype) { return dtype == DType::Float32 ? 4 : dtype == DType::UInt8 ? 1 : 2; }

// Taps of the horizontal pass: output x sums `count` weights from weight + x * count, over source pixels from first[x]. All
// outputs have as many, some of them 0: a number that changed from pixel to pixel would be mispredicted at every other one.
struct TapTable {
  const int32_t* first;
  const float* weight;
  int32_t count;
};

struct Planes {
  float *r, *g, *b;
};

struct RowKernels {
  const char* name;
  // out[i] = sum over k of weight[k] * rows[k][i], ascending k, for n interleaved channels.
  void (*vertical)(const uint8_t* const* rows, const float* weight, int taps, int n, float* out);
  // Interleaved RGB row to planes, size pixels, mirrored on request, clamped to [0, 1]. Reads 4 floats a tap: `row` has one to spare.
  // `scratch` holds 4 * size floats.
  void (*horizontal)(const float* row, const TapTable& taps, int size, bool mirror, float* scratch, const Planes& out);
  void (*brightness)(const Planes& row, int n, float factor);
  void (*contrast)(const Planes& row, int n, float factor, float mean);
  void (*saturation)(const Planes& row, int n, float factor);
  void (*hue)(const Planes& row, int n, float turn);
  void (*grayscale)(const Planes& row, int n);
  void (*solarize)(const Planes& row, int n, float threshold);
  // Sum of core::luma_fixed over the row.
  int64_t (*luma_sum)(const Planes& row, int n);
  // out[i] = weight[0] * rows[radius][i] + sum over k of weight[k] * (rows[radius - k][i] + rows[radius + k][i]).
  void (*blur_vertical)(const float* const* rows, const float* weight, int radius, int n, float* out);
  // The same along a row that has `radius` more floats on either side.
  void (*blur_horizontal)(const float* row, const float* weight, int radius, int n, float* out);
  // scale * v + bias a channel, cast, written as three planes or interleaved; r, g and b are where the three channels go.
  void (*store)(const Planes& row, int n, const float scale[3], const float bias[3], DType dtype, void* r, void* g,
                void* b, bool interleaved);
};

// The kernels for this machine; the environment variable FASTSSL_SIMD (generic, v3, v4) asks for fewer.
const RowKernels& row_kernels();

}  // namespace fastssl::cpu
