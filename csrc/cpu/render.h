// The CPU executor: one image and one plan become one view, written once, in its final type and layout.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/plan.h"
#include "../core/program.h"
#include "memory.h"
#include "rows.h"

namespace fastssl::cpu {

// An image in memory, or a part of it, or a smaller copy of it. Crops always speak of the image that was drawn for: its
// height and width. Memory holds `rows` x `columns` pixels, from (top, left) on, of that image shrunk by `shrink`, where pixel
// (i, j) is the mean of the pixels from (i * shrink, j * shrink) to before ((i + 1) * shrink, (j + 1) * shrink).
struct ImageView {
  const void* pixels = nullptr;
  int height = 0, width = 0;  // of the whole image, not shrunk
  int64_t stride = 0;         // bytes from row to row
  PixelType type = PixelType::UInt8;
  int channels = 3;
  int shrink = 1;                               // 1, 2, 4 or 8
  int top = 0, left = 0, rows = 0, columns = 0;  // of the shrunk image; all of it by whole()

  // Says that memory holds the whole image.
  ImageView& whole() {
    rows = (height + shrink - 1) / shrink;
    columns = (width + shrink - 1) / shrink;
    return *this;
  }
};

// Where the views of a batch go: view i of size S begins at data + i * C * S * S elements,
// C being the channels of the image.
struct Output {
  void* data = nullptr;
  DType dtype = DType::Float32;
  bool channels_last = false;
};

// Renders views one after another; owns the memory between the passes. One per thread.
class Renderer {
 public:
  // Throws std::invalid_argument where the plan does not fit the image or the spec cannot be rendered, in words that can
  // follow a sample's name and a colon.
  void render(const ImageView& image, const core::ViewSpec& spec, const core::ViewPlan& plan, const Output& out,
              int64_t position);
  // The memory that it holds.
  size_t bytes() const;
  void free();

 private:
  struct View;
  // Weights of one axis.
  struct Taps {
    Scratch<int32_t> first;  // and the counts behind them
    Scratch<float> weight, ragged;
  };

  core::Compiled program_;
  Scratch<float> view_[2],
      source_[2];  // frames: of the view's size, and of the source's where colours come before the crop
  Scratch<float> block_, scratch_, line_;
  Scratch<int32_t> border_;
  Taps x_, y_;
  std::vector<const float*> rows_;
};

}  // namespace fastssl::cpu
