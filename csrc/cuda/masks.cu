#include "masks.h"
#include "masks_kernel.h"
#include "on_device.h"

namespace fastssl::cuda {

void draw_masks(const core::MaskJob& job, int device, uintptr_t stream) {
  choose(device);
  run_any(job, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
