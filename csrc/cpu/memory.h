// Memory in large pieces: from the system and back to it, so that nothing stays behind when it is let go of.
#pragma once

#include <cstddef>
#include <utility>

namespace fastssl::cpu {

// Aligned to a cache line at least, not initialized. Throws std::bad_alloc. Large pieces come in huge pages where the system
// has them.
void* allocate(size_t size);
// `size` is what was asked for.
void release(void* data, size_t size) noexcept;

// Memory that grows; what was in it is lost.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { free(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The memory, of at least n elements.
  T* at_least(size_t n) {
    if (n > size_) {
      free();  // first give back, then take
      data_ = static_cast<T*>(allocate(n * sizeof(T)));
      size_ = n;
    }
    return data_;
  }
  size_t bytes() const { return size_ * sizeof(T); }
  void free() noexcept {
    if (data_) release(data_, bytes());
    data_ = nullptr;
    size_ = 0;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fastssl::cpu
