#include "cache.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace fastssl::cpu {

namespace {

// Several images share a chunk, so that huge pages are filled; an image of more than a quarter has its own.
constexpr size_t kChunk = size_t(32) << 20;

bool own_chunk(size_t size) { return size > kChunk / 4; }

}  // namespace

int64_t row_bytes(const ImageView& image) { return int64_t(image.columns) * image.channels * pixel_size(image.type); }

// What stands before the pixels.
struct alignas(64) MemoryCache::Entry {
  ImageView image;
  const uint8_t* pixels() const { return reinterpret_cast<const uint8_t*>(this + 1); }
};

MemoryCache::MemoryCache(int64_t samples, int64_t bytes, std::shared_ptr<const MemoryCache> base)
    : base_(std::move(base)),
      owner_(getpid()),
      samples_(samples),
      limit_(bytes),
      entries_(new std::atomic<const Entry*>[size_t(samples)]) {
  static_assert(sizeof(Entry) <= 128, "it is small beside any image");
  int64_t images = 0;
  for (int64_t i = 0; i < samples; ++i) {
    const Entry* entry = base_ && i < base_->samples_ ? base_->entries_[size_t(i)].load() : nullptr;
    images += entry != nullptr;
    entries_[size_t(i)].store(entry, std::memory_order_relaxed);
  }
  images_.store(images);
  if (base_) bytes_.store(base_->bytes_.load());
}

MemoryCache::~MemoryCache() {
  // In a forked child the parent's list of chunks may have been caught half written, and the pages are the parent's.
  if (getpid() != owner_) return;
  for (const Chunk& chunk : chunks_) release(chunk.data, chunk.size);
}

// Memory for one image, or null where the budget does not allow it.
uint8_t* MemoryCache::take(size_t size) {
  const std::lock_guard lock(mutex_);
  if (size <= free_bytes_) {
    uint8_t* const out = free_;
    free_ += size;
    free_bytes_ -= size;
    return out;
  }
  const auto room = size_t(std::max<int64_t>(0, limit_ - bytes_.load()));
  const bool own = own_chunk(size);
  const size_t chunk = own ? aligned(size, 4096) : std::min(kChunk, room);
  if (size > room || chunk > room) return nullptr;
  uint8_t* data;
  try {
    chunks_.reserve(chunks_.size() + 1);
    data = static_cast<uint8_t*>(allocate(chunk));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  chunks_.push_back({data, chunk});
  bytes_.fetch_add(int64_t(chunk));
  if (own) return data;
  free_ = data + size;
  free_bytes_ = chunk - size;
  return data;
}

bool MemoryCache::find(int64_t index, Scratch<uint8_t>&, ImageView& image) {
  const Entry* entry =
      index >= 0 && index < samples_ ? entries_[size_t(index)].load(std::memory_order_acquire) : nullptr;
  if (!entry) {
    misses_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  hits_.fetch_add(1, std::memory_order_relaxed);
  image = entry->image;
  return true;
}

bool MemoryCache::wants(int64_t index, int64_t bytes) {
  if (index < 0 || index >= samples_ || getpid() != owner_) return false;
  if (entries_[size_t(index)].load(std::memory_order_acquire)) return false;
  const auto size = int64_t(aligned(sizeof(Entry) + size_t(bytes) + kSlack));
  const std::lock_guard lock(mutex_);
  const int64_t room = limit_ - bytes_.load();
  const auto taken = int64_t(own_chunk(size_t(size)) ? aligned(size_t(size), 4096) : size_t(size));
  const bool fits = size <= int64_t(free_bytes_) || taken <= room;
  if (!fits) left_out_.fetch_add(1, std::memory_order_relaxed);
  return fits;
}

void MemoryCache::keep(int64_t index, const ImageView& image, std::string_view) {
  if (index < 0 || index >= samples_ || getpid() != owner_) return;
  std::atomic<const Entry*>& place = entries_[size_t(index)];
  if (place.load(std::memory_order_acquire)) return;
  const int64_t row = row_bytes(image);
  uint8_t* const memory = take(aligned(sizeof(Entry) + size_t(row) * size_t(image.rows) + kSlack));
  if (!memory) {  // another thread took the room meanwhile, or the system has no more
    left_out_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  auto* const entry = new (memory) Entry{image};
  auto* to = const_cast<uint8_t*>(entry->pixels());
  const auto* from = static_cast<const uint8_t*>(image.pixels);
  for (int y = 0; y < image.rows; ++y) std::memcpy(to + y * row, from + y * image.stride, size_t(row));
  entry->image.pixels = to;
  entry->image.stride = row;
  const Entry* none = nullptr;
  // Where another thread decoded the same image meanwhile, its copy stays, and this one's memory lies idle: that is rare.
  if (place.compare_exchange_strong(none, entry, std::memory_order_acq_rel)) images_.fetch_add(1);
}

Cache::Counts MemoryCache::counts() const {
  return {images_.load(), bytes_.load(), hits_.load(), misses_.load(), left_out_.load()};
}

}  // namespace fastssl::cpu
