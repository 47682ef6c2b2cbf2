// Every operation of the renderer, in every form, on memory of just the right size.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/plan.h"
#include "cpu/render.h"
#include "tests/check.h"
#include "tests/render_cases.h"

using namespace fastssl;
using namespace cases;

namespace {

// Whether every value is there: what was in the output before is no number, or differs from one time to the other.
bool finite(const std::vector<float>& memory, size_t bytes, cpu::DType dtype) {
  const auto* data = reinterpret_cast<const uint8_t*>(memory.data());
  const auto step = size_t(cpu::dtype_size(dtype));
  for (size_t i = 0; i < bytes; i += step) {
    uint32_t bits = 0;
    std::memcpy(&bits, data + i, step);
    const uint32_t exponent = dtype == cpu::DType::Float32   ? 0x7F800000u
                              : dtype == cpu::DType::Float16 ? 0x7C00u
                                                             : 0x7F80u;
    if ((bits & exponent) == exponent) return false;
  }
  return true;
}

}  // namespace

core::ViewSpec busy_view(int size) {
  core::ViewSpec spec;
  spec.size = size;
  spec.flip_p = spec.vflip_p = spec.turn_p = 0.5;
  spec.rotate_p = 0.3;
  spec.degrees[0] = -90;
  spec.degrees[1] = 90;
  set_colour(spec, kAll, 3);
  spec.jitter_p = 0.8;
  spec.solarize_p = spec.posterize_p = spec.erase_p = 0.3;
  spec.bits = 3;
  spec.blur_p = 0.6;
  spec.sigma_px[0] = 0.1;
  spec.sigma_px[1] = 4;
  return spec;
}

void test_render() {
  constexpr uint32_t kCases = 3000;
  cpu::Renderer used;
  std::vector<int> seen[kAxes];
  for (int axis = 0; axis < kAxes; ++axis) seen[axis].assign(size_t(kCounts[axis]), 0);
  Case c;
  for (uint32_t number = 0; number < kCases; ++number) {
    make_case(c, number);
    const auto dtype = cpu::DType(c.of[kOutput]);
    const size_t bytes =
        size_t(c.channels) * size_t(c.spec().size) * size_t(c.spec().size) * size_t(cpu::dtype_size(dtype));
    // View 1 of two; the first is left alone, and so is what is behind the second, or the sanitizer says so.
    std::vector<float> out[2];
    for (int again = 0; again < 2; ++again) {
      cpu::Renderer fresh;
      std::vector<float> memory((2 * bytes + 3) / 4);
      auto* const begin = reinterpret_cast<uint8_t*>(memory.data()) + 4 * memory.size() - 2 * bytes;
      std::memset(begin, 0xAB, bytes);
      std::memset(begin + bytes, again && dtype == cpu::DType::UInt8 ? 0 : 0xFF, bytes);
      try {
        (again ? fresh : used).render(c.image, c.spec(), c.plans[1], {begin, dtype, c.of[kLayout] != 0}, 1);
      } catch (const std::invalid_argument& error) {
        std::fprintf(stderr, "case %u: %s\n", number, error.what());
        CHECK(!"a plan that was drawn is rendered");
      }
      CHECK(std::all_of(begin, begin + bytes, [](uint8_t b) { return b == 0xAB; }));
      out[again].resize((bytes + 3) / 4);
      std::memcpy(out[again].data(), begin + bytes, bytes);
    }
    CHECK(dtype == cpu::DType::UInt8 || finite(out[0], bytes, dtype));
    CHECK(std::memcmp(out[0].data(), out[1].data(), bytes) == 0);
    for (int axis = 0; axis < kAxes; ++axis) ++seen[axis][size_t(c.of[axis])];
  }
  for (const std::vector<int>& axis : seen) CHECK(*std::min_element(axis.begin(), axis.end()) > 100);
  CHECK(used.bytes() > 0);
  used.free();
  CHECK(used.bytes() == 0);
}

void test_edited_plans() {
  cpu::Renderer renderer;
  for (const auto& [height, width] : kImages) {
    const std::vector<uint8_t> pixels(size_t(height) * size_t(width) * 3, 77);
    const cpu::ImageView image = packed_image(pixels.data(), height, width);
    core::ViewSpec spec = busy_view(8);
    spec.erase_p = 1;
    const core::ViewPlan plan = core::draw_view(spec, {}, height, width, nullptr);
    std::vector<float> out(3 * 64);
    const auto refused = [&](auto edit, cpu::DType dtype = cpu::DType::Float32) {
      core::ViewPlan edited = plan;
      edit(edited);
      return throws<std::invalid_argument>([&] { renderer.render(image, spec, edited, {out.data(), dtype}, 0); });
    };
    CHECK(refused([](core::ViewPlan& p) { p.source_width += 1; }));
    CHECK(refused([](core::ViewPlan& p) { p.left = -1; }));
    CHECK(refused([](core::ViewPlan& p) { p.height = NAN; }));
    CHECK(refused([](core::ViewPlan& p) { p.width = 1e9f; }));
    CHECK(refused([](core::ViewPlan& p) { p.order[0] = p.order[1]; }));
    CHECK(refused([](core::ViewPlan& p) { p.order[2] = NAN; }));
    CHECK(refused([](core::ViewPlan& p) { p.hue = 2; }));
    CHECK(refused([](core::ViewPlan& p) { p.sigma_px = INFINITY; }));
    CHECK(refused([](core::ViewPlan& p) { p.turns = 9; }));
    // Errors speak of numbers that no integer holds.
    for (const float wild : {NAN, INFINITY, -INFINITY, 1e30f, 0.5f}) {
      CHECK(refused([=](core::ViewPlan& p) { p.source_height = wild; }));
    }
    // Nothing is erased, so it does not matter where.
    for (const float far : {1e30f, -1e30f, INFINITY}) {
      CHECK(!refused([=](core::ViewPlan& p) {
        p.erase_height = p.erase_width = 0;
        p.erase_top = p.erase_left = far;
      }));
    }
    // uint8 holds no value beyond its range.
    const auto erase = [](core::ViewPlan& p) {
      p.erase_top = p.erase_left = 1;
      p.erase_height = p.erase_width = 3;
    };
    for (const float value : {-1.0f, 1.5f, 1e30f}) {
      spec.erase_value = value;
      CHECK(refused(erase, cpu::DType::UInt8));
      CHECK(!refused(erase));
    }
    spec.erase_value = 1;
    CHECK(!refused(erase, cpu::DType::UInt8));
    spec.size = 0;
    CHECK(refused([](core::ViewPlan&) {}));
  }
}
