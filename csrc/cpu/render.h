// The CPU executor: one image and one plan become one view, written once, in its final type and layout.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/plan.h"
#include "memory.h"
#include "rows.h"

namespace fastssl::cpu {

// 8-bit RGB, interleaved; rows `stride` bytes apart.
struct ImageView {
  const uint8_t* pixels = nullptr;
  int height = 0, width = 0;
  int64_t stride = 0;
};

// Where the views of a batch go: view i of size S begins at data + i * 3 * S * S elements.
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

 private:
  struct View;

  Scratch<float> planes_[2], line_, row_, result_, padded_;
  Scratch<int32_t> taps_, mirror_;
  Scratch<float> x_ragged_, x_weights_, y_weights_;
  std::vector<const uint8_t*> sources_;
  std::vector<const float*> rows_;
  std::vector<float> kernel_;
};

}  // namespace fastssl::cpu
