// What the tests in C++ share: a check that counts what failed and goes on, and numbers to fill memory with.
#pragma once

#include <cstdint>
#include <cstdio>

#include "core/image.h"
#include "core/philox.h"
#include "core/plan.h"

inline int failures = 0;

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                          \
    }                                                                      \
  } while (false)

template <typename Error, typename F>
bool throws(F f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

inline uint32_t noise(uint32_t i) { return fastssl::core::philox4x32(i, 0, 0, 0, 1, 2).v[0]; }

// An image of three bytes a pixel, without gaps.
inline fastssl::core::ImageView packed_image(const uint8_t* pixels, int height, int width) {
  fastssl::core::ImageView image;
  image.pixels = pixels;
  image.stride = int64_t(3) * width;
  image.height = height;
  image.width = width;
  return image.whole();
}

// A view in which much happens.
fastssl::core::ViewSpec busy_view(int size);

// In entropy_tests.cpp.
void test_entropy();
// In render_tests.cpp.
void test_render();
void test_edited_plans();
// In masks_tests.cpp.
void test_masks();
// In cuda_contrastive_tests.cpp.
void test_cuda_contrastive();
void test_cuda_wide();
// In cuda_render_tests.cpp.
void test_cuda_render();
