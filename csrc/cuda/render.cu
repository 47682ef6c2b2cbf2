#include "render.h"

#include "on_device.h"
#include "render_kernels.h"

namespace fastssl::cuda {

void launch_render(const RenderPlan& plan, const void* table, void* workspace, int device, uintptr_t stream) {
  choose(device);
  launch_all(plan, table, workspace, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
