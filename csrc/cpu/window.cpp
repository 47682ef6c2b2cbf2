#include "window.h"

#include <algorithm>
#include <cmath>

namespace fastssl::cpu {

namespace {

int shrunk(int extent, int shrink) { return (extent + shrink - 1) / shrink; }

}  // namespace

Needed needed_by(const core::ViewSpec* specs, const core::ViewPlan* plans, size_t count, int height, int width,
                 bool may_shrink) {
  Needed out;
  double top = height, left = width, bottom = 0, right = 0;
  int shrink = may_shrink ? 8 : 1;
  for (size_t v = 0; v < count; ++v) {
    const core::ViewPlan& plan = plans[v];
    if (specs[v].step_count > 0 && specs[v].steps[0] != core::Step::Crop) {
      out.window = {0, 0, height, width};
      return out;
    }
    top = std::min(top, double(plan.top));
    left = std::min(left, double(plan.left));
    bottom = std::max(bottom, double(plan.top) + plan.height);
    right = std::max(right, double(plan.left) + plan.width);
    while (shrink > 1 && std::min(plan.height, plan.width) < float(specs[v].size) * float(shrink)) shrink /= 2;
  }
  // As the renderer rounds: every pixel that a crop touches, and at least one.
  const auto side = [shrink](double low, double high, int extent, int& begin, int& length) {
    const int whole = shrunk(extent, shrink);
    begin = std::clamp(int(std::floor(low / shrink)), 0, whole - 1);
    length = std::clamp(int(std::ceil(high / shrink)), begin + 1, whole) - begin;
  };
  out.shrink = shrink;
  side(top, bottom, height, out.window.top, out.window.rows);
  side(left, right, width, out.window.left, out.window.columns);
  return out;
}

}  // namespace fastssl::cpu
