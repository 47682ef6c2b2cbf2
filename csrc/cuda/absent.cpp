// Stands in for cuda/*.cu in a build without CUDA, so that no caller needs to know.
#include <stdexcept>

#include "contrastive.h"
#include "device.h"
#include "masks.h"
#include "render.h"

namespace fastssl::cuda {

namespace {
constexpr const char* kAbsent =
    "this build of fastssl has no CUDA; install with nvcc on the PATH (FASTSSL_CUDA=ON makes the build fail where it "
    "is missing)";
}

const char* architectures() { return ""; }
int device_count() { return 0; }
DeviceInfo device_info(int) { throw std::runtime_error(kAbsent); }
void launch_render(const RenderPlan&, const void*, void*, int, uintptr_t) { throw std::runtime_error(kAbsent); }
void core_probe(int, const float*, int64_t, float, float*) { throw std::runtime_error(kAbsent); }
GridSize grid_size(int, bool) { throw std::runtime_error(kAbsent); }
void launch_forward(const ContrastiveJob&, const ForwardPlan&, const ForwardResults&, void*, int, uintptr_t) {
  throw std::runtime_error(kAbsent);
}
void launch_backward(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&, void*,
                     int, uintptr_t) {
  throw std::runtime_error(kAbsent);
}
void launch_ntxent(const ContrastiveJob&, const NtxentPlan&, float*, void*, void*, int, uintptr_t) {
  throw std::runtime_error(kAbsent);
}
void launch_ntxent_backward(const ContrastiveJob&, const NtxentPlan&, const float*, void*, const BackwardResults&,
                            void*, int, uintptr_t) {
  throw std::runtime_error(kAbsent);
}
void draw_masks(const core::MaskJob&, int, uintptr_t) { throw std::runtime_error(kAbsent); }

}  // namespace fastssl::cuda
