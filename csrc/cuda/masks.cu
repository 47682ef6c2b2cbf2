#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "masks.h"
#include "masks_kernel.h"

namespace fastssl::cuda {

namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Makes a device the current one, and puts back the one that was.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    if (before_ != device_) check(cudaSetDevice(device_), "choosing the device");
  }
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_, before_ = 0;
};

}  // namespace

void draw_masks(const core::MaskJob& job, int device, uintptr_t stream) {
  const OnDevice here(device);
  run_any(job, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
