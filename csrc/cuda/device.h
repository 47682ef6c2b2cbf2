// What this build can do on a GPU, and whether the GPU computes what the CPU does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastssl::cuda {

// The architectures that the build holds code for, "80;90", or "" in a build without CUDA.
const char* architectures();
// GPUs that the driver offers; 0 without a GPU, a driver, or CUDA in the build. Never throws.
int device_count();
struct DeviceInfo {
  std::string name;
  int major, minor, multiprocessors;
  int64_t memory_bytes;
};
// Throws std::runtime_error.
DeviceInfo device_info(int device);
// Runs core/ on the GPU: for n pixels (n x 3 floats in [0, 1]) writes n x 13 floats: luma, and the pixel after brightness,
// saturation, hue and solarize with `factor`. The host twin is core_probe_host(). Throws std::runtime_error.
void core_probe(int device, const float* pixels, int64_t n, float factor, float* out);
// The same on the CPU, with core/ as compiled for the baseline.
void core_probe_host(const float* pixels, int64_t n, float factor, float* out);

}  // namespace fastssl::cuda
