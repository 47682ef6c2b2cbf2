#include "render_plan.h"

#include <algorithm>
#include <compare>
#include <cstring>
#include <map>
#include <stdexcept>

#include "render_reach.h"

namespace fastssl::cuda {

namespace {

using core::From;
using core::Pass;

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t frame_bytes(int rows, int columns, int channels) {
  return aligned(int64_t(channels) * rows * ((columns + 3) / 4 * 4) * int64_t(sizeof(float)));
}

// Hands out a chunk's memory, from its beginning.
struct Workspace {
  int64_t used = 0;
  int64_t take(int64_t bytes) {
    const int64_t at = used;
    used += aligned(bytes);
    return at;
  }
};

constexpr int64_t kMostBlocks = INT32_MAX;  // of a launch, CUDA's own limit

int64_t taps_bytes(int size, int most) { return int64_t(size) * (8 + int64_t(most) * 4); }

void place(ViewRecord& view, const Needs& needs, Workspace& memory) {
  const int size = view.program.size, channels = view.image.channels;
  const int64_t bytes = frame_bytes(size, size, channels);
  const int64_t source_bytes = frame_bytes(needs.rows, needs.columns, channels);
  for (int i = 0; i < 2; ++i) {
    if (needs.view[i]) view.frames[i] = memory.take(bytes);
    if (needs.source[i]) view.source_frames[i] = memory.take(source_bytes);
  }
  if (needs.spare || needs.spare_source)
    view.spare = memory.take(needs.spare_source ? std::max(bytes, source_bytes) : bytes);
  view.luma = memory.take(sizeof(uint64_t));
  if (!needs.taps) return;
  view.x_taps = memory.take(taps_bytes(size, needs.x_most));
  view.y_taps = memory.take(taps_bytes(size, needs.y_most));
}

// What one launch does: a pass, by its number, of views of one spec and of those like it.
struct Group {
  int32_t pass;
  Stage stage;
  core::PixelType type;  // Crop: of what is resampled
  int32_t spec;

  auto operator<=>(const Group&) const = default;
};

class Builder {
 public:
  explicit Builder(const RenderRequest& request) : request_(request) {
    plan_.dtype = request.dtype;
    plan_.channels_last = request.channels_last;
    for (size_t v = 0; v < request.specs.size(); ++v) {
      reaches_.push_back(fixed() ? reach_of(request.specs, v) : Reach{});
      size_t like = 0;  // the first spec whose views have as many tiles, and may need as much
      while (request.specs[like].size != request.specs[v].size || !(reaches_[like] == reaches_[v])) ++like;
      like_.push_back(int32_t(like));
    }
    records_.reserve(request.images.size() * request.specs.size());
  }

  RenderPlan build() {
    const size_t views = request_.specs.size();
    for (size_t i = 0; i < request_.images.size(); ++i) {
      try {
        for (size_t v = 0; v < views; ++v) add(i, v);
      } catch (const std::invalid_argument& error) {
        throw std::invalid_argument("render: image " + std::to_string(i) + ": " + error.what());
      }
    }
    end_chunk();
    // The records come first in the table; what they point to lies behind them.
    const int64_t records = aligned(int64_t(records_.size() * sizeof(ViewRecord)));
    for (ViewRecord& view : records_) {
      view.kernel += records;
      view.scale += records;
    }
    int64_t at = records + aligned(int64_t(floats_.size() * sizeof(float)));
    for (Launch& launch : plan_.launches) launch.list = at + launch.list * int64_t(sizeof(int32_t));
    plan_.table.resize(size_t(at) + numbers_.size() * sizeof(int32_t));
    copy(records_, 0);
    copy(floats_, records);
    copy(numbers_, at);
    return std::move(plan_);
  }

 private:
  template <typename T>
  void copy(const std::vector<T>& from, int64_t to) {
    if (!from.empty()) std::memcpy(plan_.table.data() + to, from.data(), from.size() * sizeof(T));
  }

  int64_t add_floats(const std::vector<float>& values) {
    const auto at = int64_t(floats_.size() * sizeof(float));
    floats_.insert(floats_.end(), values.begin(), values.end());
    return at;
  }

  void add(size_t i, size_t v) {
    const core::ViewSpec& spec = request_.specs[v];
    const core::ImageView& image = request_.images[i];
    ViewRecord view;
    core::compile(spec, request_.plans[i * request_.specs.size() + v], image.height, image.width, image.channels,
                  compiled_);
    core::check_memory(compiled_, image, request_.dtype);
    if (image.channels != request_.images[0].channels)
      core::refuse("it has " + std::to_string(image.channels) + " channels, and image 0 has " +
                   std::to_string(request_.images[0].channels) + "; a batch needs as many in each");
    view.image = image;
    view.program = compiled_;
    view.passes = core::list_passes(compiled_);
    if (compiled_.cropped) {
      view.x = core::crop_axis(compiled_, image, compiled_.left, compiled_.width, image.left, image.columns);
      view.y = core::crop_axis(compiled_, image, compiled_.top, compiled_.height, image.top, image.rows);
      view.x_most = core::axis_max_taps(view.x);
      view.y_most = core::axis_max_taps(view.y);
    }
    const int64_t element = core::dtype_size(request_.dtype);
    const int64_t elements = int64_t(image.channels) * spec.size * spec.size;
    view.out = static_cast<char*>(request_.outputs[v]) + int64_t(i) * elements * element;
    view.wide = spec.size % 4 == 0 && reinterpret_cast<uintptr_t>(view.out) % uintptr_t(4 * element) == 0;
    const Needs needs = fixed() ? needs_of_spec(view, v) : needs_of(view);
    if (fixed()) compiled_.kernel.resize(size_t(reaches_[v].radius) + 1);
    view.kernel = compiled_.radius > 0 || fixed() ? add_floats(compiled_.kernel) : 0;
    view.scale = scale_of(v);
    Workspace tried = workspace_;
    place(view, needs, tried);
    if (tried.used > request_.workspace && int64_t(records_.size()) > chunk_begin_) {
      end_chunk();
      place(view, needs, workspace_);
    } else {
      workspace_ = tried;
    }
    spec_of_.push_back(like_[v]);
    records_.push_back(view);
  }

  bool fixed() const { return request_.most_height > 0; }

  // Where launches are fixed, as much as any view of this spec needs; this one must not need more.
  Needs needs_of_spec(const ViewRecord& view, size_t v) const {
    const Needs most = needs_of(reaches_[v], request_.specs[v], request_.most_height, request_.most_width);
    check_within(view, reaches_[v], most);
    return most;
  }

  // The same for all views of a spec.
  int64_t scale_of(size_t v) {
    if (v >= scales_.size()) {
      scales_.push_back(add_floats(compiled_.scale));
      add_floats(compiled_.bias);
    }
    return scales_[v];
  }

  void end_chunk() {
    plan_.workspace = std::max(plan_.workspace, workspace_.used);
    workspace_ = {};
    // In the order of the passes; within one, by what it does and for which view, so that the tiles are as many in each.
    std::map<Group, std::vector<int32_t>> groups;
    std::vector<int32_t> all;
    std::vector<int32_t> of_spec(request_.specs.size());
    for (auto r = int32_t(chunk_begin_); r < int32_t(records_.size()); ++r) {
      const ViewRecord& view = records_[size_t(r)];
      const int32_t spec = spec_of_[size_t(r)];
      all.push_back(r);
      ++of_spec[size_t(spec)];
      for (int p = 0; p < view.passes.count; ++p) {
        for (const Stage stage : stages_of(view, view.passes.list[p]))
          groups[{p, stage, stage == Stage::Crop ? cropped_type(view) : core::PixelType::UInt8, spec}].push_back(r);
      }
      if (fixed()) add_possible(view, spec, groups);
    }
    chunk_begin_ = int64_t(records_.size());
    if (all.empty()) return;
    add_launch({0, Stage::Taps, core::PixelType::UInt8, 0}, all, int32_t(all.size()));
    for (const auto& [group, views] : groups)
      add_launch(group, views, fixed() ? of_spec[size_t(group.spec)] : int32_t(views.size()));
  }

  // Every group that a view of this spec may come to be in.
  void add_possible(const ViewRecord& view, int32_t spec, std::map<Group, std::vector<int32_t>>& groups) const {
    const Reach& reach = reaches_[size_t(spec)];
    const bool custom = request_.specs[size_t(spec)].part == core::Part::AfterCustom;
    for (int p = 0; p < reach.passes; ++p) {
      if (!custom) {
        groups[{p, Stage::Crop, view.image.type, spec}];
        if (reach.source) groups[{p, Stage::Crop, core::PixelType::Float32, spec}];
      }
      groups[{p, Stage::Frame, core::PixelType::UInt8, spec}];
      if (p == 0 || reach.radius == 0) continue;
      groups[{p, Stage::Blur, core::PixelType::UInt8, spec}];
      if (reach.radius <= kTiledRadius) continue;
      groups[{p, Stage::BlurColumns, core::PixelType::UInt8, spec}];
      groups[{p, Stage::BlurRows, core::PixelType::UInt8, spec}];
    }
  }

  // Of what its crop is taken from.
  static core::PixelType cropped_type(const ViewRecord& view) {
    return view.program.before.count > 0 ? core::PixelType::Float32 : view.image.type;
  }

  static std::vector<Stage> stages_of(const ViewRecord& view, const Pass& pass) {
    if (pass.from == From::Crop) return {Stage::Crop};
    if (pass.from != From::Blurred) return {Stage::Frame};
    if (view.program.radius <= kTiledRadius) return {Stage::Blur};
    return {Stage::BlurColumns, Stage::BlurRows};
  }

  // In two, where views of very different shapes would make too many tiles, which are as many for each.
  void add_launch(const Group& group, const std::vector<int32_t>& views, int32_t most) {
    Launch launch;
    launch.stage = group.stage;
    launch.pass = group.pass;
    launch.type = group.type;
    launch.list = int64_t(numbers_.size());
    launch.views = most;
    const int channels = request_.images[0].channels;
    launch.channels = channels == 3 ? 3 : 1;
    int tiles_x = 0, tiles_y = 0;
    const auto count = [&](int rows, int columns) {
      tiles_x = std::max(tiles_x, (columns + kTile - 1) / kTile);
      tiles_y = std::max(tiles_y, (rows + kTile - 1) / kTile);
    };
    for (const int32_t r : views) {
      const ViewRecord& view = records_[size_t(r)];
      const bool source = group.stage != Stage::Taps && view.passes.list[group.pass].source;
      source ? count(view.image.rows, view.image.columns) : count(view.program.size, view.program.size);
      launch.radius = std::max(launch.radius, view.program.radius);
    }
    if (fixed() && group.stage != Stage::Taps) {
      const Reach& reach = reaches_[size_t(group.spec)];
      const int size = request_.specs[size_t(group.spec)].size;
      count(size, size);
      if (reach.source) count(request_.most_height, request_.most_width);
      launch.radius = reach.radius;
    }
    launch.tiles_x = tiles_x;
    int64_t tiles = int64_t(tiles_x) * tiles_y * (channels == 3 ? 1 : channels);
    if (group.stage == Stage::Taps) tiles = 2 * ((tiles_x * kTile + kTapsThreads - 1) / kTapsThreads);
    if (tiles * most > kMostBlocks && views.size() > 1 && !fixed()) {
      const auto middle = views.begin() + most / 2;
      add_launch(group, {views.begin(), middle}, most / 2);
      return add_launch(group, {middle, views.end()}, most - most / 2);
    }
    if (tiles * most > kMostBlocks) core::refuse("render: an image is too large for a GPU");
    launch.tiles = int32_t(tiles);
    launch.radius = group.stage == Stage::Blur ? std::min(launch.radius, kTiledRadius) : 0;
    numbers_.push_back(int32_t(views.size()));
    numbers_.insert(numbers_.end(), views.begin(), views.end());
    numbers_.resize(size_t(launch.list) + 1 + size_t(most));
    plan_.launches.push_back(launch);
  }

  const RenderRequest& request_;
  RenderPlan plan_;
  core::Compiled compiled_;
  std::vector<ViewRecord> records_;
  std::vector<int32_t> like_, spec_of_, numbers_;
  std::vector<float> floats_;
  std::vector<int64_t> scales_;
  std::vector<Reach> reaches_;  // of the specs, where launches are fixed
  Workspace workspace_;
  int64_t chunk_begin_ = 0;
};

}  // namespace

RenderPlan prepare_render(const RenderRequest& request) { return Builder(request).build(); }

}  // namespace fastssl::cuda
