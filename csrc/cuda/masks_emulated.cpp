#include "masks.h"
#include "masks_kernel.h"

namespace fastssl::cuda {

int64_t rank_scratch(int32_t cells) {
  const int64_t bytes = rank_bytes(cells);
  return bytes > kSharedBytes ? bytes : 0;
}
int64_t bits_scratch(int32_t rows, int32_t columns) {
  const int64_t bytes = bits_bytes(rows, columns);
  return bytes > kSharedBytes ? bytes : 0;
}

void draw_masks_emulated(const core::MaskJob& job) { run_any(job, {}); }

}  // namespace fastssl::cuda
