// Blocks and threads on the host: the functions of grid.h for a compiler that is not nvcc.
//
// The threads of a block are fibers of one thread of the machine, which run one after the other from barrier to barrier. What
// a GPU would do wrong is made visible: threads that part at a barrier or a shuffle are an error; shared memory begins as
// NaN, not as what the block before left; and the order of threads and blocks can be turned round, which changes the
// result of a kernel that lacks a barrier or needs what another block writes. Copies to shared memory arrive when they are
// waited for and not before; until then their place holds NaN. Matrix instructions take their operands from the 32 lanes by
// the layout that PTX documents; rows of a matrix that share banks, which a GPU would only be slow at, are an error. Bulk
// copies arrive when somebody waits for their mbarrier, wgmma's products are made when they are waited for, and until then
// the place of either holds NaN; a copy to where products still read, and products of what is still being copied, are
// errors, as is a phase of an mbarrier that its parity does not tell from another, and a block in which nobody can go on.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

#define FASTSSL_DEVICE inline
#define FASTSSL_UNROLL(n)
#define FASTSSL_UNROLL_ALL

namespace fastssl::cuda::emulator {

constexpr int kWarp = 32;
constexpr int kGiftWords = 6;  // that a lane gives to the others at once, at most

// `blocks` blocks of `threads` threads run `body`. Throws what that throws, and std::logic_error where they
// part.
void run(int64_t blocks, int threads, int shared_bytes, const std::function<void()>& body);

// The order in which a block's threads run between barriers, and, but for Shuffled, the blocks.
enum class Order : int32_t { Forward, Backward, Shuffled };
void set_order(Order order);
// Where shared memory begins, for kernels that align what they put there; a multiple of 128, as on a GPU.
void set_shared_base(uint32_t base);

int thread();
int64_t block();
void barrier();
char* shared();
uint32_t shared_base();
int32_t shuffle_xor(int32_t value, int mask);
// See grid.h and matrix.h. Addresses in shared memory are counted from shared_base() on.
void copy_async(uint32_t to, const void* from);
void commit_copies();
void wait_copies(int left);
void load_matrices(uint32_t row, bool transposed, uint32_t out[4]);
void multiply_add(float c[4], const uint32_t a[4], const uint32_t b[2]);
float half_value(uint16_t bits);

// See wide.h.
void make_mbarrier(uint32_t at, uint32_t arrivals);
void arrive(uint32_t mbarrier);
void arrive_expecting(uint32_t mbarrier, uint32_t bytes);
void wait_phase(uint32_t mbarrier, uint32_t phase);
void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t mbarrier);
void join_warp();
void fence_products();
void commit_products();
void wait_products();
// `left` null: A is what left_matrix describes.
void multiply_wide(float* sums, int columns, const uint32_t* left, uint64_t left_matrix, uint64_t right_matrix,
                   bool left_transposed, bool transposed, bool add);
void publish_shared();

}  // namespace fastssl::cuda::emulator

namespace fastssl::cuda {
namespace {
namespace grid {

struct Stream {};
constexpr int kFewer = 0;

FASTSSL_DEVICE int thread() { return emulator::thread(); }
FASTSSL_DEVICE int thread_again() { return emulator::thread(); }
FASTSSL_DEVICE int64_t block() { return emulator::block(); }
FASTSSL_DEVICE int64_t block_again() { return emulator::block(); }
FASTSSL_DEVICE void barrier() { emulator::barrier(); }
FASTSSL_DEVICE void warp_barrier() {}
FASTSSL_DEVICE char* shared() { return emulator::shared(); }
template <typename T>
FASTSSL_DEVICE T* global(T* address) {
  return address;
}
FASTSSL_DEVICE int32_t shuffle_xor(int32_t value, int mask) { return emulator::shuffle_xor(value, mask); }
FASTSSL_DEVICE void atomic_add(uint64_t* to, uint64_t value) { *to += value; }
// Nothing beside them, for the sanitizer's sake; words.h is tested by itself.
FASTSSL_DEVICE uint32_t load_word(const void* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

template <typename Kernel>
void launch(const Kernel& kernel, int64_t blocks, int shared_bytes, Stream) {
  emulator::run(blocks, Kernel::kThreads, shared_bytes, [&kernel] { kernel(); });
}

}  // namespace grid
}  // namespace
}  // namespace fastssl::cuda
