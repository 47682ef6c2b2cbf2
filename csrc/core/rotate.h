// Rotation of a square view about its middle.
#pragma once

#include <stdint.h>

#include "macros.h"
#include "plan.h"

namespace fastssl::core {

// Whole part of a coordinate that is not much below zero, without the library's floor.
FASTSSL_HD int32_t floor_of(float v) {
  const int32_t whole = int32_t(v);
  return float(whole) > v ? whole - 1 : whole;
}

// Where an output pixel lies in the view before its rotation: the pixel, and for Bilinear how far from it to the next.
struct Turned {
  int32_t row, column;
  float down, right;
};
FASTSSL_HD Turned turned(int32_t i, int32_t j, int32_t size, RotateFilter filter, float cosine, float sine) {
  const float middle = 0.5f * float(size);
  const float x = float(j) + 0.5f - middle, y = float(i) + 0.5f - middle;
  // Turned back: clockwise, with y pointing down.
  const float source_x = fused(cosine, x, -(sine * y)) + middle;
  const float source_y = fused(sine, x, cosine * y) + middle;
  if (filter == RotateFilter::Nearest) return {floor_of(source_y), floor_of(source_x), 0, 0};
  const int32_t row = floor_of(source_y - 0.5f), column = floor_of(source_x - 0.5f);
  return {row, column, source_y - 0.5f - float(row), source_x - 0.5f - float(column)};
}

// `pixel(row, column)` is one channel's value, also beside the view.
template <typename Pixel>
FASTSSL_HD float sample(const Turned& at, RotateFilter filter, const Pixel& pixel) {
  const float a = pixel(at.row, at.column);
  if (filter == RotateFilter::Nearest) return a;
  const float b = pixel(at.row, at.column + 1);
  const float d = pixel(at.row + 1, at.column), e = pixel(at.row + 1, at.column + 1);
  const float above = fused(at.right, b - a, a), below = fused(at.right, e - d, d);
  return fused(at.down, below - above, above);
}

}  // namespace fastssl::core
