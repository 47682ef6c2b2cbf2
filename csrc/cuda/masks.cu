#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "masks.h"
#include "masks_kernel.h"

namespace fastssl::cuda {

void draw_masks(const core::MaskJob& job, int device, uintptr_t stream) {
  // What torch holds for the current device the caller has made this one; here the runtime of this library learns of it.
  const cudaError_t error = cudaSetDevice(device);
  if (error != cudaSuccess) throw std::runtime_error(std::string("choosing the device: ") + cudaGetErrorString(error));
  run_any(job, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
