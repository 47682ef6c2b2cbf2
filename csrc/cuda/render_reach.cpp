#include "render_reach.h"

namespace fastssl::cuda {

namespace {

// Whether the view may be turned or rotated, by itself or as the view is whose geometry it takes.
bool may_turn(const std::vector<core::ViewSpec>& specs, size_t v) {
  while (specs[v].crop == core::CropKind::Same && specs[v].of >= 0 && size_t(specs[v].of) < v) v = size_t(specs[v].of);
  return specs[v].turn_p > 0 || specs[v].rotate_p > 0;
}

int passes_of_blur(const core::ViewSpec& spec) { return spec.blur == core::BlurKind::Gaussian ? 1 : core::kBoxPasses; }

}  // namespace

Needs needs_of(const ViewRecord& view) {
  Needs out;
  for (int i = 0; i < view.passes.count; ++i) {
    const core::Pass& pass = view.passes.list[i];
    if (pass.writes >= 0) (pass.source ? out.source : out.view)[pass.writes] = true;
    if (pass.from == core::From::Blurred && view.program.radius > kTiledRadius)
      (pass.source ? out.spare_source : out.spare) = true;
  }
  out.taps = view.program.cropped;
  out.rows = view.image.rows;
  out.columns = view.image.columns;
  out.x_most = view.x_most;
  out.y_most = view.y_most;
  return out;
}

Reach reach_of(const std::vector<core::ViewSpec>& specs, size_t v) {
  const core::ViewSpec& spec = specs[v];
  Reach out;
  bool after = spec.part == core::Part::AfterCustom;
  for (int i = 0; i < spec.step_count && !after; ++i) {
    after = spec.steps[i] == core::Step::Crop;
    out.source |= !after;
  }
  const bool blurs = spec.blur_p > 0 && spec.sigma_px[1] > 0;
  if (blurs) {
    std::vector<float> kernel;
    out.radius = spec.blur == core::BlurKind::Gaussian ? core::gaussian_half_kernel(spec.sigma_px[1], kernel)
                                                       : core::box_half_kernel(spec.sigma_px[1], kernel);
  }
  // The image, the crop, a turn or rotation; contrast; the blur.
  out.passes =
      1 + int(out.source) + int(may_turn(specs, v)) + int(spec.jitter_p > 0) + (blurs ? passes_of_blur(spec) : 0);
  return out;
}

Needs needs_of(const Reach& reach, const core::ViewSpec& spec, int height, int width) {
  Needs out;
  out.view[0] = out.view[1] = true;
  out.source[0] = out.source[1] = reach.source;
  (reach.source ? out.spare_source : out.spare) = reach.radius > kTiledRadius;
  out.taps = spec.part != core::Part::AfterCustom;
  out.rows = height;
  out.columns = width;
  out.x_most = core::axis_max_taps(core::make_axis(0, width, spec.size, 0, width, spec.filter));
  out.y_most = core::axis_max_taps(core::make_axis(0, height, spec.size, 0, height, spec.filter));
  return out;
}

void check_within(const ViewRecord& view, const Reach& reach, const Needs& most) {
  if (view.image.rows > most.rows || view.image.columns > most.columns) {
    core::refuse("it has " + core::by(float(view.image.rows), float(view.image.columns)) +
                 " pixels, more than the largest that was announced, " +
                 core::by(float(most.rows), float(most.columns)));
  }
  if (view.program.radius > reach.radius || view.passes.count > reach.passes ||
      (view.program.before.count > 0 && !reach.source))
    core::refuse("its plan holds what the recipe never draws, for which nothing was prepared");
  if (view.x_most > most.x_most || view.y_most > most.y_most)
    core::refuse("its crop needs more memory than was prepared");
}

}  // namespace fastssl::cuda
