// Carries a RenderPlan out, on whatever machine grid.h stands for. Included by render.cu and render_emulated.cpp alone.
#pragma once

#include "blur_kernel.h"
#include "crop_kernel.h"
#include "frame_kernel.h"
#include "render_plan.h"

namespace fastssl::cuda {
namespace {

template <int C>
void launch_stage(const Launch& launch, const Work& work, grid::Stream stream) {
  const int64_t blocks = int64_t(launch.views) * work.tiles;
  switch (launch.stage) {
    case Stage::Taps: return grid::launch(TapsKernel{work}, blocks, 0, stream);
    case Stage::Crop:
      switch (launch.type) {
        case core::PixelType::UInt8: return grid::launch(CropKernel<C, uint8_t>{work}, blocks, crop_shared(C), stream);
        case core::PixelType::UInt16:
          return grid::launch(CropKernel<C, uint16_t>{work}, blocks, crop_shared(C), stream);
        case core::PixelType::Float32: return grid::launch(CropKernel<C, float>{work}, blocks, crop_shared(C), stream);
      }
      return;
    case Stage::Frame: return grid::launch(FrameKernel<C>{work}, blocks, 0, stream);
    case Stage::Blur: return grid::launch(BlurKernel<C>{work}, blocks, blur_shared(launch.radius), stream);
    case Stage::BlurColumns: return grid::launch(BlurColumnsKernel<C>{work}, blocks, 0, stream);
    case Stage::BlurRows: return grid::launch(BlurRowsKernel<C>{work}, blocks, 0, stream);
  }
}

void launch_all(const RenderPlan& plan, const void* table, void* workspace, grid::Stream stream) {
  for (const Launch& launch : plan.launches) {
    const Work work{static_cast<const char*>(table),
                    static_cast<char*>(workspace),
                    launch.list,
                    launch.pass,
                    launch.tiles_x,
                    launch.tiles,
                    plan.dtype,
                    plan.channels_last};
    launch.channels == 3 ? launch_stage<3>(launch, work, stream) : launch_stage<1>(launch, work, stream);
  }
}

}  // namespace
}  // namespace fastssl::cuda
