// Decoded images, kept from one epoch to the next.
//
// Any thread may look up and store at any time; a look-up takes no lock. What is found has every byte of what was stored. A
// cache never throws out of a look-up or a store, and never gives pixels that it is not sure of: where something is wrong
// with it, it says so by error(), gives nothing, and takes nothing.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "memory.h"
#include "render.h"

namespace fastssl::cpu {

// A cache that cannot be used: which, what was found, and the remedy.
struct CacheError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Bytes of a row of the pixels that memory holds.
int64_t row_bytes(const ImageView& image);
// Bytes behind an image that may be read, though they mean nothing.
constexpr size_t kSlack = 64;
// Where images begin: at a multiple of so many bytes.
constexpr int64_t kAlign = 64;
// The next multiple of `to`.
template <typename T>
constexpr T aligned(T size, int64_t to = kAlign) {
  return (size + T(to) - 1) / T(to) * T(to);
}

class Cache {
 public:
  struct Counts {
    int64_t images = 0, bytes = 0;  // that it holds
    int64_t hits = 0, misses = 0;  // of this object
    int64_t left_out = 0;  // images that did not fit
  };

  virtual ~Cache() = default;
  // The image, if it is there. Its pixels stay for as long as the cache does, or until `buffer` is used again.
  virtual bool find(int64_t index, Scratch<uint8_t>& buffer, ImageView& image) = 0;
  // Whether it lacks the image and has room for that many bytes of pixels and label. Called once before keep().
  virtual bool wants(int64_t index, int64_t bytes) = 0;
  // Stores a whole image, and with it its label where the cache is one that others will read. The first one stays.
  virtual void keep(int64_t index, const ImageView& image, std::string_view label = {}) = 0;
  // Says that there is no such image: it cannot be decoded.
  virtual void absent(int64_t) {}
  // What is wrong with the cache; empty if nothing is.
  virtual std::string error() { return {}; }
  virtual Counts counts() const = 0;

 protected:
  std::atomic<int64_t> hits_{0}, misses_{0};
};

// In memory of this process, up to a number of bytes.
//
// A forked child has the parent's images, as pages that both share until one writes, but no right to its memory: it makes a
// cache of its own on top (`base`).
class MemoryCache : public Cache {
 public:
  // `bytes` bounds the memory for images; 8 bytes a sample come on top. What `base` holds counts too.
  MemoryCache(int64_t samples, int64_t bytes, std::shared_ptr<const MemoryCache> base = nullptr);
  ~MemoryCache() override;

  bool find(int64_t index, Scratch<uint8_t>& buffer, ImageView& image) override;
  bool wants(int64_t index, int64_t bytes) override;
  void keep(int64_t index, const ImageView& image, std::string_view label = {}) override;
  Counts counts() const override;

 private:
  struct Entry;
  struct Chunk {
    uint8_t* data;
    size_t size;
  };
  uint8_t* take(size_t size);

  const std::shared_ptr<const MemoryCache> base_;
  const pid_t owner_;
  const int64_t samples_, limit_;
  std::unique_ptr<std::atomic<const Entry*>[]> entries_;
  std::atomic<int64_t> images_{0}, bytes_{0}, left_out_{0};
  std::mutex mutex_;  // of what follows
  std::vector<Chunk> chunks_;
  uint8_t* free_ = nullptr;  // within the last chunk that is shared by several images
  size_t free_bytes_ = 0;
};

}  // namespace fastssl::cpu
