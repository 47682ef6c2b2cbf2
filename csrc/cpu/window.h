// Which part of an image its views need, and in which size.
#pragma once

#include <cstddef>

#include "../core/plan.h"
#include "jpeg.h"

namespace fastssl::cpu {

struct Needed {
  int shrink = 1;
  Area window;  // of the shrunk image
};

// The smallest part that holds the crops of all views. `shrink` is the largest of 1, 2, 4, 8 with which every crop keeps at
// least as many pixels as its view has, or 1 without `may_shrink`. A view with a step before its crop needs all of the image.
Needed needed_by(const core::ViewSpec* specs, const core::ViewPlan* plans, size_t count, int height, int width,
                 bool may_shrink);

}  // namespace fastssl::cpu
