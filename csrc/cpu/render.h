// The CPU executor: one image and one plan become one view, written once, in its final type and layout.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/image.h"
#include "../core/plan.h"
#include "../core/program.h"
#include "memory.h"
#include "rows.h"

namespace fastssl::cpu {

using core::ImageView;
using core::Output;

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
