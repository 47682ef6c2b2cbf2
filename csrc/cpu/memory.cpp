#include "memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

namespace fastssl::cpu {

namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t(2) << 20;
// From here on pages come from the system itself: malloc would keep some of them, in the heap of a thread that has ended.
constexpr size_t kFromSystem = size_t(256) << 10;

size_t round_up(size_t size, size_t to) { return (size + to - 1) / to * to; }

}  // namespace

void* allocate(size_t size) {
  if (size < kFromSystem) {
    void* data = std::aligned_alloc(kCacheLine, round_up(size ? size : 1, kCacheLine));
    if (!data) throw std::bad_alloc();
    return data;
  }
  // Huge pages want to begin at a multiple of their size: ask for one more and give back what sticks out.
  const size_t slack = size >= kHugePage ? kHugePage : 0;
  const size_t whole = round_up(size, 4096) + slack;
  void* data = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  if (slack) {
    const auto begin = reinterpret_cast<uintptr_t>(data);
    const uintptr_t aligned = round_up(begin, kHugePage);
    if (aligned > begin) munmap(data, aligned - begin);
    const size_t behind = begin + whole - (aligned + round_up(size, 4096));
    if (behind) munmap(reinterpret_cast<void*>(aligned + round_up(size, 4096)), behind);
    data = reinterpret_cast<void*>(aligned);
#if defined(MADV_HUGEPAGE)
    madvise(data, size, MADV_HUGEPAGE);  // a hint: without it only the first touch is slower
#endif
  }
  return data;
}

void release(void* data, size_t size) noexcept {
  if (size < kFromSystem) {
    std::free(data);
  } else {
    munmap(data, round_up(size, 4096));
  }
}

}  // namespace fastssl::cpu
