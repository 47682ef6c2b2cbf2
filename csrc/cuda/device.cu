#include "device.h"
#include "on_device.h"
#include "probe.h"

namespace fastssl::cuda {

namespace {

// Device memory that is freed on every way out.
class DeviceFloats {
 public:
  explicit DeviceFloats(int64_t n) { check(cudaMalloc(&data, size_t(n) * sizeof(float)), "allocating device memory"); }
  ~DeviceFloats() { cudaFree(data); }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;
  float* data = nullptr;
};

// One thread a pixel.
__global__ void probe_kernel(const float* pixels, int64_t n, float factor, float* out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) probe_pixel(pixels + 3 * i, factor, out + kProbeOutputs * i);
}

}  // namespace

const char* architectures() { return FASTSSL_CUDA_ARCHS_TEXT; }

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no GPU is an answer, not an error to leave behind
  return 0;
}

DeviceInfo device_info(int device) {
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, device), "asking for the device's properties");
  return {p.name, p.major, p.minor, p.multiProcessorCount, int64_t(p.totalGlobalMem)};
}

void core_probe(int device, const float* pixels, int64_t n, float factor, float* out) {
  choose(device);
  const DeviceFloats in(3 * n), result(kProbeOutputs * n);
  check(cudaMemcpy(in.data, pixels, size_t(3 * n) * sizeof(float), cudaMemcpyHostToDevice), "copying to the device");
  probe_kernel<<<unsigned((n + 255) / 256), 256>>>(in.data, n, factor, result.data);
  check(cudaGetLastError(), "launching the probe");
  check(cudaMemcpy(out, result.data, size_t(kProbeOutputs * n) * sizeof(float), cudaMemcpyDeviceToHost),
        "copying from the device");
}

}  // namespace fastssl::cuda
