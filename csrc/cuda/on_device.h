// What the files that nvcc compiles share.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastssl::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // else the next launch, though good, would report this one
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Tells this library's own copy of the runtime which device its launches are for. The caller has made it torch's current one,
// whose context is then the current one for both; that of another device must not stay behind.
inline void choose(int device) { check(cudaSetDevice(device), "choosing the device"); }

}  // namespace fastssl::cuda
