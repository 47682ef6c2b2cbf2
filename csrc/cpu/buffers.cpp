#include "buffers.h"

#include "memory.h"

namespace fastssl::cpu {

BufferPool::~BufferPool() {
  for (const Block& block : free_) release(block.data, block.size);
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
  for (const Block& block : free_) release(block.data, block.size);
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
  release(data, size);
}

}  // namespace fastssl::cpu
