// Rendering on a GPU, the launches.
#pragma once

#include <cstdint>

#include "render_plan.h"

namespace fastssl::cuda {

// Renders on `device`, in the order of `stream` (a cudaStream_t), without waiting. `table` holds plan.table's bytes and
// `workspace` plan.workspace bytes, both there and aligned to 256. Throws std::runtime_error.
void launch_render(const RenderPlan& plan, const void* table, void* workspace, int device, uintptr_t stream);
// The same kernels on the host, with memory of the host.
void emulate_render(const RenderPlan& plan, const void* table, void* workspace);

}  // namespace fastssl::cuda
