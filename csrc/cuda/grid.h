// What a kernel needs of the machine: blocks, threads, shared memory, barriers, shuffles.
//
// A kernel is a struct of its parameters with `kThreads`, the threads of a block, `kBlocks`, how many of
// them a multiprocessor must be able to hold, and a call operator, which every thread of
// every block runs; grid::launch() starts it. Compiled by nvcc, the functions here are CUDA's own. Elsewhere they are supplied
// by emulator.h, so that the same source runs on the host, where the tests and the sanitizers see it.
#pragma once

#include <cstdint>

#include "../core/macros.h"
#include "words.h"

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>

#define FASTSSL_DEVICE __device__ __forceinline__
// Before a loop: made into so many copies of its body, or into all of them.
#define FASTSSL_UNROLL(n) _Pragma(FASTSSL_PRAGMA(unroll n))
#define FASTSSL_UNROLL_ALL _Pragma("unroll")
#define FASTSSL_PRAGMA(text) #text

namespace fastssl::cuda {
namespace {
namespace grid {

using Stream = cudaStream_t;

// For compute capability 10 and above the same kernel takes more registers, so that one block fewer fits without spilling.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kFewer = 1;
#else
constexpr int kFewer = 0;
#endif

FASTSSL_DEVICE int thread() { return int(threadIdx.x); }
// With `again`: read anew, and not kept in a register from where it was read before.
FASTSSL_DEVICE int thread_again() {
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}
FASTSSL_DEVICE int64_t block() { return int64_t(blockIdx.x); }
FASTSSL_DEVICE int64_t block_again() {
  int number;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
  return number;
}
FASTSSL_DEVICE void barrier() { __syncthreads(); }
// Loads and stores of a warp do not move across it. It takes no time; without it the compiler loads so far ahead that it
// runs out of registers.
FASTSSL_DEVICE void warp_barrier() { __syncwarp(); }
// The block's shared memory, as many bytes as launch() was asked for; begins at a multiple of 128.
FASTSSL_DEVICE char* shared() {
  extern __shared__ __align__(128) float4 fastssl_shared[];
  return reinterpret_cast<char*>(fastssl_shared);
}
// An address that was itself read from memory, where the compiler cannot see that it is one of global memory: loads and stores
// through it need not find that out each time.
template <typename T>
FASTSSL_DEVICE T* global(T* address) {
  __builtin_assume(__isGlobal(address));
  return address;
}
// The value of the lane whose number differs in the bits of `mask`. All 32 lanes of a warp must call.
FASTSSL_DEVICE int32_t shuffle_xor(int32_t value, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, mask); }
FASTSSL_DEVICE void atomic_add(uint64_t* to, uint64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

// Four bytes at any address, of memory that no kernel writes meanwhile. What is read beside them lies in the same words.
FASTSSL_DEVICE uint32_t load_word(const void* from) {
  const Words words = words_at(from);
  return joined(__ldg(words.first), words.shift ? __ldg(words.first + 1) : 0, words.shift);
}

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocks) run(const Kernel kernel) {
  kernel();
}

// Lets a block of this kernel have so much shared memory on the current device. Asked once for each, as it takes the host about
// as long as a launch: torch never resets a device, nor leaves its primary context. Throws std::runtime_error.
template <typename Kernel>
void allow_shared(int bytes) {
  constexpr int kDevices = 64;
  static std::atomic<int> allowed[kDevices];  // bytes, of each device
  static std::mutex asking;
  int device = kDevices;
  cudaError_t error = cudaGetDevice(&device);
  const bool known = error == cudaSuccess && device < kDevices;
  if (known && allowed[device].load(std::memory_order_acquire) >= bytes) return;
  const std::lock_guard<std::mutex> lock(asking);
  if (known && allowed[device].load(std::memory_order_relaxed) >= bytes) return;  // by another thread, meanwhile
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error("asking for " + std::to_string(bytes) +
                             " bytes of shared memory: " + cudaGetErrorString(error));
  }
  if (known) allowed[device].store(bytes, std::memory_order_release);
}

// Throws std::runtime_error.
template <typename Kernel>
void launch(const Kernel& kernel, int64_t blocks, int shared_bytes, Stream stream) {
  if (blocks <= 0) return;
  constexpr int kUnasked = 48 * 1024;  // shared memory that a block may have without asking for more
  if (shared_bytes > kUnasked) allow_shared<Kernel>(shared_bytes);
  run<Kernel><<<unsigned(blocks), Kernel::kThreads, size_t(shared_bytes), stream>>>(kernel);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string("launching a kernel: ") + cudaGetErrorString(error));
}

}  // namespace grid
}  // namespace
}  // namespace fastssl::cuda

#else
#include "emulator.h"
#endif
