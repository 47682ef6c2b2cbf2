// What the views of a recipe may come to need, whatever is drawn: for launches that serve every plan.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/plan.h"
#include "render_plan.h"

namespace fastssl::cuda {

// What a view takes of the workspace.
struct Needs {
  bool view[2] = {}, source[2] = {}, spare = false, spare_source = false, taps = false;
  int32_t rows = 0, columns = 0;  // of the source
  int32_t x_most = 0, y_most = 0;
};

// Of this one.
Needs needs_of(const ViewRecord& view);

// The most that the views of a spec can take.
struct Reach {
  int32_t radius = 0, passes = 0;
  bool source = false;  // whether anything comes before the crop

  bool operator==(const Reach&) const = default;
};

// Of spec `v`, which may take its geometry from one before it.
Reach reach_of(const std::vector<core::ViewSpec>& specs, size_t v);
// As much as any view of the spec, for images of at most this size.
Needs needs_of(const Reach& reach, const core::ViewSpec& spec, int height, int width);
// Throws std::invalid_argument, in words that can follow a sample's name and a colon, where the view needs more than that.
void check_within(const ViewRecord& view, const Reach& reach, const Needs& most);

}  // namespace fastssl::cuda
