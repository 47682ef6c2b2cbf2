#include "device.h"
#include "probe.h"

namespace fastssl::cuda {

void core_probe_host(const float* pixels, int64_t n, float factor, float* out) {
  for (int64_t i = 0; i < n; ++i) probe_pixel(pixels + 3 * i, factor, out + kProbeOutputs * i);
}

}  // namespace fastssl::cuda
