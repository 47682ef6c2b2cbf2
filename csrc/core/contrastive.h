// Numbers of the contrastive losses that kernels and host must agree on.
#pragma once

#include <stdint.h>

#include "macros.h"

namespace fastssl::core {

// As torch.nn.functional.normalize: rows shorter than this are divided by this.
constexpr float kNormEps = 1e-12f;
// The gradient of such a row is large. Of the largest finite number it may reach this part: a loss may add up several gradients.
constexpr float kPartOfLargest = 0.125f;
constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLog2ERest = 1.92596299112661746887e-8f;  // log2(e) less what float32 holds of it
constexpr float kLn2 = 0.69314718055994530942f;

// A logit of unit rows lies in [-|scale|, |scale|]. Shifted by |scale|, its exponential is a normal float32 as long as
// 2 |scale| <= 85, and so is the exponential of |scale| less the logarithm of a sum of them: no maximum has to be looked for.
constexpr float kMostShiftedScale = 42.5f;
FASTSSL_HD bool constant_shift(float scale) { return scale >= -kMostShiftedScale && scale <= kMostShiftedScale; }

// The key that is the positive of query i: (i + shift) mod keys, for i and shift in [0, keys) and i + shift below 2^31.
FASTSSL_HD int32_t positive_of(int32_t i, int32_t shift, int32_t keys) {
  return i + shift < keys ? i + shift : i + shift - keys;
}
// The query whose positive is key j, where that is below the number of queries.
FASTSSL_HD int32_t query_of_positive(int32_t j, int32_t shift, int32_t keys) {
  return j >= shift ? j - shift : j - shift + keys;
}

}  // namespace fastssl::core
