#include "render_plan.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <tuple>

namespace fastssl::cuda {

namespace {

using core::From;
using core::Pass;

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t frame_bytes(int rows, int columns, int channels) {
  return aligned(int64_t(channels) * rows * ((columns + 3) / 4 * 4) * int64_t(sizeof(float)));
}

// Frees and gives out again nothing: a chunk's memory, from its beginning.
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

// Which of its frames a view needs.
struct Frames {
  bool view[2] = {}, source[2] = {}, spare = false, spare_source = false;
};

Frames frames_of(const ViewRecord& view) {
  Frames out;
  for (int i = 0; i < view.passes.count; ++i) {
    const Pass& pass = view.passes.list[i];
    if (pass.writes >= 0) (pass.source ? out.source : out.view)[pass.writes] = true;
    if (pass.from == From::Blurred && view.program.radius > kTiledRadius)
      (pass.source ? out.spare_source : out.spare) = true;
  }
  return out;
}

void place(ViewRecord& view, Workspace& memory) {
  const Frames frames = frames_of(view);
  const int size = view.program.size, channels = view.image.channels;
  const int64_t bytes = frame_bytes(size, size, channels);
  const int64_t source_bytes = frame_bytes(view.image.rows, view.image.columns, channels);
  for (int i = 0; i < 2; ++i) {
    if (frames.view[i]) view.frames[i] = memory.take(bytes);
    if (frames.source[i]) view.source_frames[i] = memory.take(source_bytes);
  }
  if (frames.spare || frames.spare_source) view.spare = memory.take(frames.spare_source ? source_bytes : bytes);
  view.luma = memory.take(sizeof(uint64_t));
  if (!view.program.cropped) return;
  view.x_taps = memory.take(taps_bytes(size, view.x_most));
  view.y_taps = memory.take(taps_bytes(size, view.y_most));
}

class Builder {
 public:
  explicit Builder(const RenderRequest& request) : request_(request) {
    plan_.dtype = request.dtype;
    plan_.channels_last = request.channels_last;
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
    view.kernel = compiled_.radius > 0 ? add_floats(compiled_.kernel) : 0;
    view.scale = scale_of(v);
    Workspace tried = workspace_;
    place(view, tried);
    if (tried.used > request_.workspace && int64_t(records_.size()) > chunk_begin_) {
      end_chunk();
      place(view, workspace_);
    } else {
      workspace_ = tried;
    }
    spec_of_.push_back(int32_t(v));
    records_.push_back(view);
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
    std::map<std::tuple<int, Stage, core::PixelType, int>, std::vector<int32_t>> groups;
    std::vector<int32_t> cropped;
    for (auto r = int32_t(chunk_begin_); r < int32_t(records_.size()); ++r) {
      const ViewRecord& view = records_[size_t(r)];
      cropped.push_back(r);
      for (int p = 0; p < view.passes.count; ++p) {
        for (const Stage stage : stages_of(view, view.passes.list[p]))
          groups[{p, stage, cropped_type(view), spec_of_[size_t(r)]}].push_back(r);
      }
    }
    if (!cropped.empty()) add_launch(Stage::Taps, 0, cropped);
    for (const auto& [key, views] : groups) add_launch(std::get<1>(key), std::get<0>(key), views);
    chunk_begin_ = int64_t(records_.size());
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
  void add_launch(Stage stage, int pass, const std::vector<int32_t>& views) {
    Launch launch;
    launch.stage = stage;
    launch.pass = pass;
    launch.type = cropped_type(records_[size_t(views[0])]);
    launch.list = int64_t(numbers_.size());
    launch.views = int32_t(views.size());
    const int channels = records_[size_t(views[0])].image.channels;
    launch.channels = channels == 3 ? 3 : 1;
    int tiles_y = 0;
    for (const int32_t r : views) {
      const ViewRecord& view = records_[size_t(r)];
      const bool source = stage != Stage::Taps && view.passes.list[pass].source;
      const int rows = source ? view.image.rows : view.program.size;
      const int columns = source ? view.image.columns : view.program.size;
      tiles_y = std::max(tiles_y, (rows + kTile - 1) / kTile);
      launch.tiles_x = std::max(launch.tiles_x, (columns + kTile - 1) / kTile);
      launch.radius = std::max(launch.radius, view.program.radius);
    }
    int64_t tiles = int64_t(launch.tiles_x) * tiles_y * (channels == 3 ? 1 : channels);
    if (stage == Stage::Taps) tiles = 2 * ((launch.tiles_x * kTile + kTapsThreads - 1) / kTapsThreads);
    if (tiles * launch.views > kMostBlocks && launch.views > 1) {
      const auto middle = views.begin() + launch.views / 2;
      add_launch(stage, pass, {views.begin(), middle});
      return add_launch(stage, pass, {middle, views.end()});
    }
    if (tiles > kMostBlocks) core::refuse("render: an image is too large for a GPU");
    launch.tiles = int32_t(tiles);
    numbers_.insert(numbers_.end(), views.begin(), views.end());
    plan_.launches.push_back(launch);
  }

  const RenderRequest& request_;
  RenderPlan plan_;
  core::Compiled compiled_;
  std::vector<ViewRecord> records_;
  std::vector<int32_t> spec_of_, numbers_;
  std::vector<float> floats_;
  std::vector<int64_t> scales_;
  Workspace workspace_;
  int64_t chunk_begin_ = 0;
};

}  // namespace

RenderPlan prepare_render(const RenderRequest& request) { return Builder(request).build(); }

}  // namespace fastssl::cuda
