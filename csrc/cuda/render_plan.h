// Rendering on a GPU, the host's part: views are compiled into one table, which goes to the device in one copy, and into a list
// of launches. Nothing here needs CUDA.
//
// Note [Rendering on a GPU]
// Each launch makes one kind of pass (core/passes.h) of many views, in tiles of 32 x 32 pixels, a block each. Between passes a
// view is a frame of floats in the workspace. Views go in chunks, so that the workspace, which is used again for each, stays
// within a stated size. Luma is summed in fixed point by atomic additions, which are free of order; so the bits of the result
// are those of the CPU, whose arithmetic (core/) this is.
//
// Note [The floor of rendering]
// 2 views of 224 px from 0.2 megapixels, by SimCLR, to bfloat16. Memory: the source once, 0.6 MB, and the views, 0.6 MB: 1.2 MB,
// 0.40 us an image at 3.0 TB/s. Frames add what contrast (of 0.8 of the views) and blur (of 0.5) write and read, each 2 x 0.6 MB:
// 3.1 MB an image, 1.0 us where they miss the caches. Instructions, of one lane, a view, counted in the machine code for sm_90:
// a tile's threads find what they make, 12.5 k of 350: 4.4 M. Down the columns 63 k groups of four values, 42 and 26 for each of
// 2.9 taps: 7.4 M. Along the rows 50 k pixels, 31 and 10 a tap: 3.0 M. Colours 40 k pixels, about 120: 4.8 M. Store: 1.3 M.
// Frames for contrast, 0.8 of 12.5 k threads of 250: 2.5 M. Blur, half of the views, radius 3.5: what lies around 220 k values of 13,
// 185 k and 150 k values of 5 a step, and 12.5 k threads of 400: 7 M. That is 30 M, 60 M an image, 2.1 us at the 29 T a second
// of 132 multiprocessors at 1.7 GHz. So 2.1 us, 480,000 images a second, where nothing waits; the requirement is 6.7 us.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../core/image.h"
#include "../core/passes.h"
#include "../core/plan.h"
#include "../core/program.h"
#include "../core/resample.h"

namespace fastssl::cuda {

constexpr int kMostShared = 48 * 1024;  // of a block, without asking for more, bytes
constexpr int kTile = 32;  // side of what a block renders, pixels
constexpr int kTapsThreads = 128;  // of a block that makes weights, an output pixel each
// Up to this radius a blurred tile is made in shared memory: two copies of it, with what lies around, fit into 48 KiB.
constexpr int kTiledRadius = 28;

// All that the kernels know of a view. Offsets count bytes from the table or from the workspace.
struct ViewRecord {
  core::ImageView image;  // its pixels are on the device
  core::Program program;
  core::Passes passes;
  core::Axis x, y;
  void* out = nullptr;  // the view's first element
  bool wide = false;  // four pixels of a row can be stored as one
  int64_t frames[2] = {}, source_frames[2] = {}, spare = 0;  // in the workspace; `spare` serves blurs of a large radius
  int64_t luma = 0;  // in the workspace: the sum, uint64
  int64_t x_taps = 0, y_taps = 0;  // in the workspace: first[size], count[size], weight[size][most]
  int32_t x_most = 0, y_most = 0;
  int64_t kernel = 0, scale = 0;  // in the table: floats; behind the scales are as many biases
};

enum class Stage : int32_t { Taps, Crop, Frame, Blur, BlurColumns, BlurRows };

// One launch of a kernel: the views whose numbers stand in the table from byte `list` on, behind their count.
struct Launch {
  Stage stage = Stage::Taps;
  int32_t pass = 0;  // its number in each of these views
  core::PixelType type = core::PixelType::UInt8;  // Crop: of what is resampled
  int32_t channels = 3;  // that a thread holds: 3, or 1 where the image has other than 3
  int64_t list = 0;
  int32_t views = 0;  // at most
  int32_t tiles_x = 0, tiles = 0;  // of the largest of them; `tiles` counts those of all channels
  int32_t radius = 0;  // Blur: the largest

  bool operator==(const Launch&) const = default;
};

struct RenderPlan {
  std::vector<char> table;
  std::vector<Launch> launches;
  int64_t workspace = 0;  // bytes
  core::DType dtype = core::DType::Float32;
  bool channels_last = false;
};

// What is to be rendered: image i's views take plans[i * specs.size() + v] and go to place i of outputs[v].
struct RenderRequest {
  std::vector<core::ViewSpec> specs;
  std::vector<core::ImageView> images;
  const core::ViewPlan* plans = nullptr;
  std::vector<void*> outputs;
  core::DType dtype = core::DType::Float32;
  bool channels_last = false;
  int64_t workspace =
      int64_t(96) << 20;  // bytes that the views in flight may take; one view may always take what it needs
  // Where not 0: the largest image there will be. Launches, table and workspace are then those that any plan which the specs
  // can draw needs, for images up to this size, so that a graph of the launches serves other plans, too.
  int32_t most_height = 0, most_width = 0;
};

// Throws std::invalid_argument where a plan does not fit its image, in words that name the image.
RenderPlan prepare_render(const RenderRequest& request);

}  // namespace fastssl::cuda
