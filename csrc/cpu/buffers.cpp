#include "buffers.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace fastssl::cpu {

namespace {

constexpr size_t kHugePage = size_t(2) << 20;

void* allocate(size_t size) {
  const size_t alignment = size >= kHugePage ? kHugePage : 64;
  void* data = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!data) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (alignment == kHugePage) madvise(data, size, MADV_HUGEPAGE);  // a hint: without it only the first touch is slower
#endif
  return data;
}

}  // namespace

BufferPool::~BufferPool() {
  for (const Block& block : free_) std::free(block.data);
}

std::shared_ptr<BufferPool::Lease> BufferPool::lease(size_t size) {
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < free_.size(); ++i) {
      if (free_[i].size != size) continue;
      void* data = free_[i].data;
      free_[i] = free_.back();
      free_.pop_back();
      return std::make_shared<Lease>(shared_from_this(), data, size);
    }
  }
  return std::make_shared<Lease>(shared_from_this(), allocate(size), size);
}

void BufferPool::close() {
  const std::lock_guard lock(mutex_);
  kept_ = 0;
  for (const Block& block : free_) std::free(block.data);
  free_.clear();
}

void BufferPool::give_back(void* data, size_t size) {
  {
    const std::lock_guard lock(mutex_);
    if (free_.size() < kept_) {
      free_.push_back({data, size});
      return;
    }
  }
  std::free(data);
}

}  // namespace fastssl::cpu
