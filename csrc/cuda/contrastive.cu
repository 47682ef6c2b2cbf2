#include "contrastive.h"

#include "contrastive_parts.h"
#include "on_device.h"

namespace fastssl::cuda {

GridSize grid_size(int device, bool wide) {
  GridSize size;
  check(cudaDeviceGetAttribute(&size.multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "counting multiprocessors");
  check(cudaDeviceGetAttribute(&size.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
        "asking for the size of shared memory");
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for the compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking for the compute capability");
  size.newer = major >= 10;
  size.wide = wide;
  if (wide && (major != 9 || minor != 0))
    throw std::runtime_error("kernels by wgmma need a GPU of compute capability 9.0, an H100 or H200; this one has " +
                             std::to_string(major) + "." + std::to_string(minor));
  if (wide && !has_wide())
    throw std::runtime_error("this build of fastssl has no kernels by wgmma; FASTSSL_CUDA_ARCHS must hold 90");
  return size;
}

void launch_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                    int device, uintptr_t stream) {
  choose(device);
  (job.split() ? forward_split
   : plan.wide ? forward_wide
               : forward_halves)(job, plan, results, workspace, reinterpret_cast<cudaStream_t>(stream));
}

void launch_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                     const BackwardResults& results, void* workspace, int device, uintptr_t stream) {
  choose(device);
  (job.split()        ? backward_split
   : plan.wide        ? backward_wide
   : plan.wide_panels ? backward_wide_panels
                      : backward_halves)(job, plan, inputs, results, workspace, reinterpret_cast<cudaStream_t>(stream));
}

void launch_ntxent(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace,
                   int device, uintptr_t stream) {
  choose(device);
  (job.split()         ? ntxent_split
   : plan.forward.wide ? ntxent_wide
                       : ntxent_halves)(job, plan, loss, kept, workspace, reinterpret_cast<cudaStream_t>(stream));
}

void launch_ntxent_backward(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                            const BackwardResults& results, void* workspace, int device, uintptr_t stream) {
  choose(device);
  (job.split()          ? ntxent_backward_split
   : plan.backward.wide ? ntxent_backward_wide
   : plan.backward.wide_panels
       ? ntxent_backward_wide_panels
       : ntxent_backward_halves)(job, plan, grad, kept, results, workspace, reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace fastssl::cuda
