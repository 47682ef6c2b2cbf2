// The kernels that render on a GPU, run on the host: memory of just the right size, every order of threads, and the bits of the CPU's
// renderer. And what runs them there.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/draw.h"
#include "cpu/render.h"
#include "cuda/emulator.h"
#include "cuda/render.h"
#include "cuda/render_plan.h"
#include "cuda/words.h"
#include "tests/check.h"
#include "tests/render_cases.h"

using namespace fastssl;
using namespace cases;
using cuda::emulator::Order;

namespace {

constexpr Order kOrders[] = {Order::Forward, Order::Backward, Order::Shuffled};

// Of exactly so many bytes, aligned as a GPU's memory, each of them `value`.
class Memory {
 public:
  explicit Memory(size_t bytes, int value = 0) : data_(new (std::align_val_t(256)) char[bytes]) {
    std::memset(data_.get(), value, bytes);
  }
  char* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t(256)); }
  };
  std::unique_ptr<char[], Free> data_;
};

void emulate(const cuda::RenderPlan& plan, int before) {
  const Memory table(plan.table.size()), workspace(size_t(plan.workspace), before);
  std::memcpy(table.get(), plan.table.data(), plan.table.size());
  cuda::emulate_render(plan, table.get(), workspace.get());
}

// One case's spec for as many images: copies of the case's, each with a draw of its own where memory holds all of it.
void check_case(uint32_t number, cpu::Renderer& renderer, std::set<cuda::Stage>& stages) {
  Case c;
  make_case(c, number);
  const size_t count = 1 + number % 3;
  std::vector<core::ViewPlan> plans(count, c.plans[1]);
  for (uint32_t i = 1; i < count && c.image.is_whole(); ++i) {
    core::DrawKey key;
    key.index = 100000 * i + number;
    core::ViewPlan drawn[2];
    core::draw_views(c.specs, 2, key, c.height, c.width, drawn);
    plans[i] = drawn[1];
  }
  const auto dtype = cpu::DType(c.of[kOutput]);
  const bool last = c.of[kLayout] != 0;
  const size_t element = size_t(cpu::dtype_size(dtype)), size = size_t(c.spec().size);
  const size_t bytes = count * size_t(c.channels) * size * size * element;
  const size_t shift = number % 5 * element;  // begins at an address that is aligned to 256, or to one element
  std::vector<char> want(bytes);
  for (size_t i = 0; i < count; ++i)
    renderer.render(c.image, c.spec(), plans[i], {want.data(), dtype, last}, int64_t(i));

  cuda::RenderRequest request;
  request.specs = {c.spec()};
  request.images.assign(count, c.image);
  request.plans = plans.data();
  request.dtype = dtype;
  request.channels_last = last;
  const int64_t workspaces[] = {0, 20000, 1 << 30};
  request.workspace = workspaces[number / 3 % 3];
  const int before[] = {0, 0x7F, 0xFF};  // in the workspace: nothing, large numbers, no numbers
  for (const Order order : kOrders) {
    const Memory out(shift + bytes, 0xAB);
    request.outputs = {out.get() + shift};
    const cuda::RenderPlan plan = cuda::prepare_render(request);
    for (const cuda::Launch& launch : plan.launches) stages.insert(launch.stage);
    cuda::emulator::set_order(order);
    emulate(plan, before[(number + uint32_t(order)) % 3]);
    const bool same = std::memcmp(out.get() + shift, want.data(), bytes) == 0;
    if (!same) std::fprintf(stderr, "case %u, order %d\n", number, int(order));
    CHECK(same);
    for (size_t i = 0; i < shift; ++i) CHECK(out.get()[i] == char(0xAB));
  }
  cuda::emulator::set_order(Order::Forward);
}

void test_cases() {
  cpu::Renderer renderer;
  std::set<cuda::Stage> stages;
  for (uint32_t number = 0; number < 400; ++number) {
    try {
      check_case(number, renderer, stages);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "case %u: %s\n", number, error.what());
      CHECK(!"a plan that was drawn is rendered");
    }
  }
  CHECK(stages.size() == 6);
}

void test_refusals() {
  const uint8_t pixels[12] = {};
  const cpu::ImageView image = packed_image(pixels, 2, 2);
  core::ViewSpec spec;
  spec.size = 4;
  const core::ViewPlan plan = core::draw_view(spec, {}, 2, 2, nullptr);
  std::vector<core::ViewPlan> plans(2, plan);
  std::vector<float> out(2 * 4 * 16);
  cuda::RenderRequest request;
  request.specs = {spec};
  request.images = {image, image};
  request.plans = plans.data();
  request.outputs = {out.data()};
  CHECK(!throws<std::invalid_argument>([&] { cuda::prepare_render(request); }));
  request.images[1].channels = 1;
  try {
    cuda::prepare_render(request);
    CHECK(!"images of different channels are refused");
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).find("render: image 1: it has 1 channels, and image 0 has 3") == 0);
  }
  request.images[1].channels = 3;
  plans[1].hue = 2;
  CHECK(throws<std::invalid_argument>([&] { cuda::prepare_render(request); }));
  request.images.clear();
  const cuda::RenderPlan none = cuda::prepare_render(request);
  CHECK(none.launches.empty() && none.table.empty() && none.workspace == 0);
}

// Tiles are as many for each view of a launch: those of a wide and a tall image together are more than 32 bits count.
void test_tiles_beyond_32_bits() {
  const uint8_t pixel = 0;
  core::ViewSpec spec;
  spec.size = 1;
  spec.solarize_p = 1;
  const Step steps[] = {Step::Solarize, Step::Crop};
  std::copy_n(steps, 2, spec.steps);
  spec.step_count = 2;
  constexpr int kLong = 1 << 24;
  cuda::RenderRequest request;
  std::vector<core::ViewPlan> plans;
  for (int i = 0; i < 4; ++i) {
    cpu::ImageView image = packed_image(&pixel, i % 2 ? 1 : kLong, i % 2 ? kLong : 1);
    image.channels = 1;
    request.images.push_back(image);
    plans.push_back(core::draw_view(spec, {}, image.height, image.width, nullptr));
  }
  float out[4];
  request.specs = {spec};
  request.plans = plans.data();
  request.outputs = {out};
  request.workspace = int64_t(1) << 40;
  for (const cuda::Launch& launch : cuda::prepare_render(request).launches) {
    CHECK(launch.tiles > 0 && int64_t(launch.tiles) * launch.views <= INT32_MAX);
    CHECK(launch.stage != cuda::Stage::Frame || launch.views == 1);
  }
}

void test_words() {
  alignas(4) uint8_t memory[16];
  for (size_t i = 0; i < 16; ++i) memory[i] = uint8_t(noise(uint32_t(i)) | (i % 3 ? 0 : 0x80));
  memory[5] = 0;
  memory[6] = 255;
  for (size_t at = 0; at <= 12; ++at) {
    const cuda::Words words = cuda::words_at(memory + at);
    CHECK(reinterpret_cast<uintptr_t>(words.first) % 4 == 0 && (words.shift == 0) == (at % 4 == 0));
    const uint32_t word = cuda::joined(words.first[0], words.shift ? words.first[1] : 0, words.shift);
    for (int i = 0; i < 4; ++i) CHECK(cuda::float_of_byte(word, i) == float(memory[at + size_t(i)]));
  }
}

// The machine

// Each thread leaves its number in shared memory and takes its opposite's, twice, so that the second round overwrites
// what the first one reads. Returns what thread i of each block had at the end.
std::vector<float> exchange(int threads, Order order, bool first_barrier, bool second_barrier) {
  std::vector<float> out(size_t(threads) * 2, -1);
  cuda::emulator::set_order(order);
  cuda::emulator::run(2, threads, threads * 4, [&] {
    auto* const shared = reinterpret_cast<float*>(cuda::emulator::shared());
    const int self = cuda::emulator::thread();
    auto value = float(self);
    for (int round = 0; round < 2; ++round) {
      shared[self] = value + 1;
      if (first_barrier) cuda::emulator::barrier();
      value = shared[threads - 1 - self];
      if (second_barrier) cuda::emulator::barrier();
    }
    out[size_t(cuda::emulator::block() * threads + self)] = value;
  });
  cuda::emulator::set_order(Order::Forward);
  return out;
}

// Blocks that read what the one before wrote, which on a GPU may not have run.
int last_of_chain(Order order) {
  int memory[5] = {7, 0, 0, 0, 0};
  cuda::emulator::set_order(order);
  cuda::emulator::run(4, 1, 0, [&] { memory[cuda::emulator::block() + 1] = memory[cuda::emulator::block()]; });
  cuda::emulator::set_order(Order::Forward);
  return memory[4];
}

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void test_barriers() {
  for (const int threads : {1, 40, 96}) {
    std::vector<float> want;
    for (int i = 0; i < 2 * threads; ++i) want.push_back(float(i % threads + 2));
    for (const Order order : kOrders) CHECK(equal(exchange(threads, order, true, true), want));
    if (threads == 1) continue;
    CHECK(std::isnan(exchange(threads, Order::Forward, false, true)[0]) ||
          !equal(exchange(threads, Order::Forward, false, true), want));
    CHECK(!equal(exchange(threads, Order::Forward, true, false), want));
    CHECK(!equal(exchange(threads, Order::Forward, true, false), exchange(threads, Order::Backward, true, false)));
  }
  CHECK(!equal(exchange(256, Order::Forward, true, false), exchange(256, Order::Shuffled, true, false)));
}

void test_blocks() { CHECK(last_of_chain(Order::Forward) == 7 && last_of_chain(Order::Backward) == 0); }

void test_shared_memory_is_no_number() {
  int seen = 0;
  cuda::emulator::run(3, 4, 8 * 4, [&] {
    auto* const shared = reinterpret_cast<float*>(cuda::emulator::shared());
    for (int i = 0; cuda::emulator::thread() == 0 && i < 8; ++i) seen += std::isnan(shared[i]);
    cuda::emulator::barrier();
    shared[cuda::emulator::thread()] = 1;
  });
  CHECK(seen == 3 * 8);
}

void test_threads_that_part() {
  using namespace cuda::emulator;
  const auto parts = [](int threads, const std::function<void()>& body) {
    return throws<std::logic_error>([&] { run(1, threads, 0, body); });
  };
  CHECK(parts(64, [] {
    if (thread() < 5) barrier();
  }));
  CHECK(parts(64, [] {
    if (thread() < 32) barrier();
  }));
  CHECK(parts(64, [] {
    if (thread() % 2) shuffle_xor(1, 2);
  }));
  CHECK(parts(32, [] { thread() == 3 ? barrier() : void(shuffle_xor(1, 1)); }));
  CHECK(parts(40, [] { shuffle_xor(1, 16); }));  // the last warp's lanes are not all there
  CHECK(parts(32, [] { run(1, 32, 0, [] {}); }));
  CHECK(throws<std::out_of_range>([] {
    run(2, 64, 0, [] {
      barrier();
      if (block() == 1 && thread() == 40) throw std::out_of_range("from a thread");
      barrier();
    });
  }));
  // And after all that it runs as before.
  for (const Order order : kOrders) CHECK(exchange(96, order, true, true)[0] == 2);
  int ran = 0;
  run(0, 32, 0, [&] { ++ran; });
  run(3, 32, 0, [&] { ++ran; });
  CHECK(ran == 96);
}

void test_shuffles() {
  using namespace cuda::emulator;
  for (const Order order : kOrders) {
    std::vector<int32_t> sums(128);
    set_order(order);
    run(2, 64, 0, [&] {
      const int self = int(block()) * 64 + thread();
      int32_t sum = self;
      for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
      sums[size_t(self)] = sum;
    });
    set_order(Order::Forward);
    for (int i = 0; i < 128; ++i) CHECK(sums[size_t(i)] == i / 32 * 32 * 32 + 31 * 16);
  }
}

}  // namespace

void test_cuda_render() {
  test_barriers();
  test_blocks();
  test_shared_memory_is_no_number();
  test_threads_that_part();
  test_shuffles();
  test_words();
  test_refusals();
  test_tiles_beyond_32_bits();
  test_cases();
}
