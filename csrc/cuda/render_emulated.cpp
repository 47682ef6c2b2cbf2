#include "render.h"
#include "render_kernels.h"

namespace fastssl::cuda {

void emulate_render(const RenderPlan& plan, const void* table, void* workspace) {
  launch_all(plan, table, workspace, {});
}

}  // namespace fastssl::cuda
