#include "gather.h"

#include <algorithm>
#include <cstring>

#include "cache.h"

namespace fastssl::cpu {

Region::~Region() {
  for (const Piece& piece : beside_) release(piece.data, piece.size);
}

uint8_t* Region::take(size_t bytes) {
  const size_t whole = aligned(bytes);  // kernels read whole words, the last of which may go beyond the pixels
  const size_t at = taken_.fetch_add(whole);
  if (at + whole <= size_) return block_ + at;
  auto* const data = static_cast<uint8_t*>(allocate(whole));
  const std::lock_guard lock(mutex_);
  beside_.push_back({data, whole});
  return data;
}

size_t Region::used() const { return std::min(taken_.load(), size_); }

uintptr_t Region::moved(const void* data, uintptr_t base, const std::vector<uintptr_t>& beside) const {
  const auto* const at = static_cast<const uint8_t*>(data);
  if (at && at >= block_ && at < block_ + size_) return base + uintptr_t(at - block_);
  for (size_t p = 0; p < beside_.size(); ++p) {
    if (at == beside_[p].data) return beside.at(p);
  }
  return 0;
}

void Gather::set(int64_t i, const ImageView& image) {
  images_[size_t(i)] = image;
  left_[size_t(i)] = {};
}

bool Gather::has_room(int64_t bytes) {
  int64_t room = room_.load();
  do {
    if (room < bytes) return false;
  } while (!room_.compare_exchange_weak(room, room - bytes));
  return true;
}

void Gather::leave(int64_t i, LeftEncoded image) {
  uint8_t* const data = encoded.take(image.size);
  std::memcpy(data, image.data, image.size);
  image.data = data;
  left_[size_t(i)] = image;
}

}  // namespace fastssl::cpu
