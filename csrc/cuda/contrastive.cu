#include "contrastive.h"

#include "contrastive_parts.h"
#include "on_device.h"

namespace fastssl::cuda {

GridSize grid_size(int device) {
  GridSize size;
  check(cudaDeviceGetAttribute(&size.multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "counting multiprocessors");
  check(cudaDeviceGetAttribute(&size.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
        "asking for the size of shared memory");
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for the compute capability");
  size.newer = major >= 10;
  return size;
}

void launch_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                    int device, uintptr_t stream) {
  choose(device);
  (job.split() ? forward_split : forward_halves)(job, plan, results, workspace, reinterpret_cast<cudaStream_t>(stream));
}

void launch_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                     const BackwardResults& results, void* workspace, int device, uintptr_t stream) {
  choose(device);
  (job.split() ? backward_split : backward_halves)(job, plan, inputs, results, workspace,
                                                   reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
