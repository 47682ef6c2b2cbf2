// The images of one batch on their way to a device: decoded, side by side in memory that a device can copy from, or encoded, for
// a decoder of the device.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "jpeg.h"
#include "memory.h"
#include "render.h"

namespace fastssl::cpu {

// A block of the caller's that is filled without a lock. What no longer fits has memory of its own, and is counted, so that the
// next block can be larger.
class Region {
 public:
  // `block` must outlive this object, and is aligned to kAlign.
  Region(void* block, size_t size) : block_(static_cast<uint8_t*>(block)), size_(size) {}
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // Throws std::bad_alloc.
  uint8_t* take(size_t bytes);

  // When nobody takes any more:
  // Of the block that are filled, and of all that was taken.
  size_t used() const;
  size_t taken() const { return taken_.load(); }
  // Memory beside the block.
  struct Piece {
    uint8_t* data;
    size_t size;
  };
  const std::vector<Piece>& beside() const { return beside_; }
  // Where what take() gave lies once the block has been copied to `base`, and each piece to the address at its place in
  // `beside`; 0 for what it did not give.
  uintptr_t moved(const void* data, uintptr_t base, const std::vector<uintptr_t>& beside) const;

 private:
  uint8_t* const block_;
  const size_t size_;
  std::atomic<size_t> taken_{0};
  std::mutex mutex_;  // of what follows
  std::vector<Piece> beside_;
};

// A JPEG that is left to the device.
struct LeftEncoded {
  const uint8_t* data = nullptr;
  size_t size = 0;
  int height = 0, width = 0;
  Area window;  // that its views need
};

class Gather {
 public:
  // The blocks are for pixels and for encoded data, which the device may decode to `room` bytes of pixels.
  Gather(void* block, size_t size, int64_t images, void* encoded = nullptr, size_t encoded_size = 0, int64_t room = 0)
      : pixels(block, size),
        encoded(encoded, encoded_size),
        images_(size_t(images)),
        left_(size_t(images)),
        room_(room) {}

  Region pixels, encoded;

  // Image i is there; its pixels lie in memory of `pixels`. Of several that are set or left, the last counts.
  void set(int64_t i, const ImageView& image);
  // Whether the device has room for so many bytes of pixels more, which are then taken.
  bool has_room(int64_t bytes);
  // Image i is left; its data, of which this keeps a copy, are elsewhere. Throws std::bad_alloc.
  void leave(int64_t i, LeftEncoded image);

  // When nobody sets any more:
  const ImageView& image(int64_t i) const { return images_.at(size_t(i)); }
  const LeftEncoded& left(int64_t i) const { return left_.at(size_t(i)); }  // no data: it is not left
  int64_t size() const { return int64_t(images_.size()); }

 private:
  std::vector<ImageView> images_;
  std::vector<LeftEncoded> left_;
  std::atomic<int64_t> room_;
};

}  // namespace fastssl::cpu
