#include "gather.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cache.h"

namespace fastssl::cpu {

Gather::~Gather() {
  for (const Piece& piece : beside_) release(piece.data, piece.size);
}

uint8_t* Gather::take(size_t bytes) {
  const size_t at = taken_.fetch_add(aligned(bytes));
  if (at + bytes <= size_) return block_ + at;
  auto* const data = static_cast<uint8_t*>(allocate(bytes));
  const std::lock_guard lock(mutex_);
  beside_.push_back({data, bytes});
  return data;
}

size_t Gather::used() const { return std::min(taken_.load(), size_); }

uintptr_t Gather::moved(int64_t i, uintptr_t base, const std::vector<uintptr_t>& beside) const {
  const auto* const pixels = static_cast<const uint8_t*>(images_.at(size_t(i)).pixels);
  if (pixels && pixels >= block_ && pixels < block_ + size_) return base + uintptr_t(pixels - block_);
  for (size_t p = 0; p < beside_.size(); ++p) {
    if (pixels == beside_[p].data) return beside.at(p);
  }
  throw std::invalid_argument("no image was gathered at place " + std::to_string(i));
}

}  // namespace fastssl::cpu
