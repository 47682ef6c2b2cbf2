// How far an image may be shrunk before any crop that a recipe can draw on it has fewer pixels than its view.
//
// The engine shrinks by what was drawn; a cache, which keeps an image for all epochs, by what can be drawn at all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "plan.h"

namespace fastssl::core {

// Lower bounds on what a view can be cut from: no box that is drawn is less high, less wide, or of less area.
struct SmallestCrop {
  double height = 0, width = 0, area = 0;
};

// The bounds for a random resized crop within a box of which `within` are the bounds. An attempt has at least the smallest
// area at the most extreme aspect, rounded to whole pixels; what comes after ten attempts, one side of the box and the
// other cut to the aspect.
inline SmallestCrop smallest_random_crop(const ViewSpec& spec, const SmallestCrop& within) {
  const double area = spec.area[0] * within.area;
  const double width = std::sqrt(area * spec.aspect[0]) - 0.5, height = std::sqrt(area / spec.aspect[1]) - 0.5;
  const double widest = std::sqrt(area * spec.aspect[1]), highest = std::sqrt(area / spec.aspect[0]);
  const double last_width = std::min(within.width, within.height * spec.aspect[1] - 0.5);
  const double last_height = std::min(within.height, within.width / spec.aspect[0] - 0.5);
  SmallestCrop out;
  out.width = std::max(1.0, std::min(width, last_width));
  out.height = std::max(1.0, std::min(height, last_height));
  out.area = std::max(out.width * out.height, std::min(area - (widest + highest) / 2, last_width * last_height));
  return out;
}

// The largest of 1, 2, 4 and 8 such that every box that these views can draw on an image of this size still has, divided
// by it, at least the height and width of its view. 1 where a view does anything before the crop, as a blur, whose reach is
// counted in pixels of the source.
inline int recipe_shrink(const ViewSpec* specs, size_t count, int height, int width) {
  std::vector<SmallestCrop> boxes(count);
  const SmallestCrop whole{double(height), double(width), double(height) * width};
  double most = 8;
  for (size_t v = 0; v < count; ++v) {
    const ViewSpec& spec = specs[v];
    if (spec.step_count > 0 && spec.steps[0] != Step::Crop) return 1;
    const bool inside = spec.of >= 0 && size_t(spec.of) < v;
    switch (spec.crop) {
      case CropKind::Random: boxes[v] = smallest_random_crop(spec, inside ? boxes[size_t(spec.of)] : whole); break;
      case CropKind::Center: {
        const double side = std::max(1.0, std::nearbyint(spec.keep * std::min(height, width)));
        boxes[v] = {side, side, side * side};
        break;
      }
      case CropKind::Whole: boxes[v] = whole; break;
      case CropKind::Same: boxes[v] = inside ? boxes[size_t(spec.of)] : whole; break;
    }
    most = std::min(most, std::min(boxes[v].height, boxes[v].width) / spec.size);
  }
  return most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
}

}  // namespace fastssl::core
