// Large blocks of memory that are lent, given back, and lent again, so that a batch costs no page faults.
//
// A lease is given back when its last user lets go of it, so a batch that somebody still holds is never written again.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace fastssl::cpu {

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  class Lease {
   public:
    Lease(std::shared_ptr<BufferPool> pool, void* data, size_t size)
        : pool_(std::move(pool)), data_(data), size_(size) {}
    ~Lease() { pool_->give_back(data_, size_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    void* data() const { return data_; }
    size_t size() const { return size_; }

   private:
    std::shared_ptr<BufferPool> pool_;
    void* data_;
    size_t size_;
  };

  // Keeps at most `kept` unused blocks.
  explicit BufferPool(size_t kept) : kept_(kept) {}
  ~BufferPool();
  std::shared_ptr<Lease> lease(size_t size);
  // From now on keeps none.
  void close();

 private:
  struct Block {
    void* data;
    size_t size;
  };
  void give_back(void* data, size_t size);

  std::mutex mutex_;
  size_t kept_;
  std::vector<Block> free_;
};

}  // namespace fastssl::cpu
