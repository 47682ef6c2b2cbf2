// Decoded images of one batch, side by side in memory that a device can copy from.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"
#include "render.h"

namespace fastssl::cpu {

// The block that the caller gives is filled without a lock. What no longer fits has memory of its own, and is counted, so that
// the next block can be larger.
class Gather {
 public:
  // `block` must outlive this object, and is aligned to kAlign.
  Gather(void* block, size_t size, int64_t images)
      : block_(static_cast<uint8_t*>(block)), size_(size), images_(size_t(images)) {}
  ~Gather();
  Gather(const Gather&) = delete;
  Gather& operator=(const Gather&) = delete;

  // Memory for the pixels of an image. Throws std::bad_alloc.
  uint8_t* take(size_t bytes);
  // Image i is there; its pixels lie in memory that take() gave.
  void set(int64_t i, const ImageView& image) { images_[size_t(i)] = image; }

  // When nobody takes any more:
  const std::vector<ImageView>& images() const { return images_; }
  // Of the block that are filled, and of all that was taken.
  size_t used() const;
  size_t taken() const { return taken_.load(); }
  // Memory beside the block.
  struct Piece {
    uint8_t* data;
    size_t size;
  };
  const std::vector<Piece>& beside() const { return beside_; }
  // The address of image i once the block has been copied to `base`, and each piece to the address at its place in `beside`.
  // Throws std::invalid_argument where there is no such image.
  uintptr_t moved(int64_t i, uintptr_t base, const std::vector<uintptr_t>& beside) const;

 private:
  uint8_t* const block_;
  const size_t size_;
  std::vector<ImageView> images_;
  std::atomic<size_t> taken_{0};
  std::mutex mutex_;  // of what follows
  std::vector<Piece> beside_;
};

}  // namespace fastssl::cpu
