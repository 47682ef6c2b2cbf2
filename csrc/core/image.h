// Images and batches as executors see them: addresses, sizes, strides and types.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastssl::core {

enum class DType : int32_t { Float32, Float16, BFloat16, UInt8 };

FASTSSL_HD constexpr int64_t dtype_size(DType dtype) {
  return dtype == DType::Float32 ? 4 : dtype == DType::UInt8 ? 1 : 2;
}

enum class PixelType : int32_t {
  UInt8,
  UInt16,   // 65535 is 1
  Float32,  // in [0, 1]
};

FASTSSL_HD constexpr int64_t pixel_size(PixelType type) {
  return type == PixelType::Float32 ? 4 : type == PixelType::UInt16 ? 2 : 1;
}

// What a channel's number is multiplied with to lie in [0, 1].
FASTSSL_HD constexpr float unit_of(PixelType type) {
  return type == PixelType::UInt8 ? 1.0f / 255 : type == PixelType::UInt16 ? 1.0f / 65535 : 1.0f;
}

// An image in memory, or a part of it, or a smaller copy of it. Crops always speak of the image that was drawn for: its
// height and width. Memory holds `rows` x `columns` pixels, from (top, left) on, of that image shrunk by `shrink`, where pixel
// (i, j) is the mean of the pixels from (i * shrink, j * shrink) to before ((i + 1) * shrink, (j + 1) * shrink).
struct ImageView {
  const void* pixels = nullptr;
  int64_t stride = 0;  // bytes from row to row
  int64_t plane = 0;   // bytes from channel to channel; 0: the channels of a pixel lie side by side
  int32_t height = 0, width = 0;  // of the whole image, not shrunk
  PixelType type = PixelType::UInt8;
  int32_t channels = 3;
  int32_t shrink = 1;                               // 1, 2, 4 or 8
  int32_t top = 0, left = 0, rows = 0, columns = 0;  // of the shrunk image; all of it by whole()

  // Says that memory holds the whole image.
  ImageView& whole() {
    rows = (height + shrink - 1) / shrink;
    columns = (width + shrink - 1) / shrink;
    return *this;
  }
  bool is_whole() const { return shrink == 1 && top == 0 && left == 0 && rows == height && columns == width; }
};

// Where the views of a batch go: view i of size S begins at data + i * C * S * S elements,
// C being the channels of the image.
struct Output {
  void* data = nullptr;
  DType dtype = DType::Float32;
  bool channels_last = false;
};

}  // namespace fastssl::core
