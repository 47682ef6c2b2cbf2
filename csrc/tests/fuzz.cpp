// What a fuzzer drives: decoding, rendering and reading caches, on bytes that nobody chose.
//
// The first byte of an input says which of the three, the bytes behind it what is asked for, and what is left is the data. An
// input is refused in words, or it gives what was promised; a finding aborts. `make fuzz` builds this with libFuzzer, and
// the inputs it has found worth keeping lie in tests/corpus/, which the native tests go through again (with a main of its own).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/draw.h"
#include "core/hash.h"
#include "core/plan.h"
#include "cpu/cache_file.h"
#include "cpu/jpeg.h"
#include "cpu/memory.h"
#include "cpu/render.h"
#include "cpu/window.h"

using namespace fastssl;

namespace {

#define PROMISE(condition)                                                         \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

// The input, taken from the front; zeros when it is used up.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  size_t left() const { return left_; }
  const uint8_t* rest() const { return data_; }
  template <typename T>
  T take() {
    T value{};
    const size_t n = std::min(sizeof(T), left_);
    if (n > 0) std::memcpy(&value, data_, n);
    data_ += n;
    left_ -= n;
    return value;
  }
  int below(int n) { return n <= 256 ? take<uint8_t>() % n : take<uint16_t>() % n; }
  int from_to(int low, int high) { return low + below(high - low + 1); }
  bool coin() { return take<uint8_t>() & 1; }
  template <typename T>
  T pick(std::initializer_list<T> of) {
    return of.begin()[below(int(of.size()))];
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

constexpr uint8_t kGuard = 0xA5;
constexpr size_t kGuardBytes = 64;

// Memory of just so many bytes between two guards, for those who write without the sanitizer's knowledge.
struct Guarded {
  explicit Guarded(size_t size, uint8_t fill) : bytes(size + 2 * kGuardBytes, kGuard), size(size) {
    std::memset(data(), fill, size);
  }
  uint8_t* data() { return bytes.data() + kGuardBytes; }
  bool intact() const {
    const auto good = [](uint8_t b) { return b == kGuard; };
    return std::all_of(bytes.begin(), bytes.begin() + kGuardBytes, good) &&
           std::all_of(bytes.end() - kGuardBytes, bytes.end(), good);
  }
  std::vector<uint8_t> bytes;
  size_t size;
};

// Decoding: a part of an image has the pixels of the whole.

constexpr int kMostPixels = 1 << 16;

struct Decoded {
  cpu::Area area;
  int64_t stride = 0;
  std::unique_ptr<Guarded> pixels;  // null: it was refused
  std::string error;
};

Decoded decode(cpu::JpegDecoder& decoder, const Bytes& jpeg, const cpu::Area& window, int shrink, int channels,
               int gap) {
  Decoded out;
  try {
    decoder.open(jpeg.rest(), jpeg.left());
    out.area = decoder.begin(window, shrink, channels);
    PROMISE(out.area.top >= 0 && out.area.left >= 0 && out.area.top <= window.top && out.area.left <= window.left);
    PROMISE(out.area.top + out.area.rows >= window.top + window.rows);
    PROMISE(out.area.left + out.area.columns >= window.left + window.columns);
    out.stride = int64_t(out.area.columns) * channels + gap;
    auto pixels = std::make_unique<Guarded>(size_t(out.stride) * size_t(out.area.rows), kGuard);
    decoder.read(pixels->data(), out.stride);
    out.pixels = std::move(pixels);
  } catch (const cpu::DecodeError& error) {
    PROMISE(std::strlen(error.what()) > 0);
    out.error = error.what();
    return out;
  }
  PROMISE(out.pixels->intact());
  for (int y = 0; y < out.area.rows; ++y) {
    const uint8_t* row = out.pixels->data() + y * out.stride + (out.stride - gap);
    for (int k = 0; k < gap; ++k) PROMISE(row[k] == kGuard);
  }
  return out;
}

void promise_same(const Decoded& a, const Decoded& b) {
  PROMISE(a.error == b.error && bool(a.pixels) == bool(b.pixels));
  PROMISE(!a.pixels || a.pixels->bytes == b.pixels->bytes);
}

void fuzz_decode(Bytes input) {
  static cpu::JpegDecoder decoder;  // as in the engine: one for all images, whatever happened to those before
  const int shrink = 1 << input.below(4);
  const bool as_stored = input.coin();
  const uint8_t where[4] = {input.take<uint8_t>(), input.take<uint8_t>(), input.take<uint8_t>(), input.take<uint8_t>()};
  cpu::ImageSize size;
  try {
    size = decoder.open(input.rest(), input.left());
  } catch (const cpu::DecodeError&) {
    return;
  }
  PROMISE(size.height > 0 && size.width > 0 && (size.channels == 1 || size.channels == 3 || size.channels == 4));
  if (int64_t(size.height) * size.width > kMostPixels) return;
  const int channels = as_stored && size.channels == 1 ? 1 : 3;
  const int rows = (size.height + shrink - 1) / shrink, columns = (size.width + shrink - 1) / shrink;
  cpu::Area window;
  window.top = where[0] * rows / 256;
  window.left = where[1] * columns / 256;
  window.rows = 1 + where[2] * (rows - window.top) / 256;
  window.columns = 1 + where[3] * (columns - window.left) / 256;
  const Decoded whole = decode(decoder, input, {0, 0, rows, columns}, shrink, channels, 0);
  cpu::JpegDecoder fresh;  // what was decoded before must not matter
  const Decoded part = decode(fresh, input, window, shrink, channels, where[0] % 4);
  // Small files are decoded with our own Huffman codes from the second time on that their tables are seen.
  static cpu::JpegDecoder libjpeg(cpu::Huffman::Libjpeg);
  promise_same(decode(decoder, input, {0, 0, rows, columns}, shrink, channels, 0), whole);
  promise_same(decode(libjpeg, input, {0, 0, rows, columns}, shrink, channels, 0), whole);
  promise_same(decode(decoder, input, window, shrink, channels, where[0] % 4), part);
  promise_same(decode(libjpeg, input, window, shrink, channels, where[0] % 4), part);
  if (!whole.pixels || !part.pixels) return;
  for (int y = window.top; y < window.top + window.rows; ++y) {
    const uint8_t* a = whole.pixels->data() + (y - whole.area.top) * whole.stride;
    const uint8_t* b = part.pixels->data() + (y - part.area.top) * part.stride;
    PROMISE(std::memcmp(a + (window.left - whole.area.left) * channels, b + (window.left - part.area.left) * channels,
                        size_t(window.columns) * size_t(channels)) == 0);
  }
}

// Rendering: every value of the view is written and finite, and nothing else is.

// Floats that lie at an edge of something.
float edge(Bytes& input) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (input.coin()) return input.take<float>();
  return input.pick({0.0f,        -0.0f,         1.0f,
                     -1.0f,       0.5f,          2.0f,
                     3.0f,        7.0f,          8.0f,
                     63.0f,       64.0f,         1e-45f,
                     -1e-45f,     1e-30f,        0.99999994f,
                     1.0000001f,  1000.0f,       36000.0f,
                     16777216.0f, 2147483648.0f, -2147483648.0f,
                     1e30f,       -1e30f,        std::numeric_limits<float>::max(),
                     kInfinity,   -kInfinity,    std::numeric_limits<float>::quiet_NaN()});
}

double probability(Bytes& input) { return input.pick({0.0, 0.5, 1.0}); }

void take_range(Bytes& input, double low, double high, double (&range)[2]) {
  range[0] = low + (high - low) * input.take<uint8_t>() / 255;
  range[1] = range[0] + (high - range[0]) * input.take<uint8_t>() / 255;
}

// What fastssl.transforms.View can say, and no more.
core::ViewSpec take_spec(Bytes& input, int channels, bool to_uint8) {
  core::ViewSpec spec;
  spec.size = input.from_to(1, 64);
  spec.crop = core::CropKind(input.below(4));
  spec.of = spec.crop == core::CropKind::Same ? 0 : spec.crop == core::CropKind::Random ? -input.below(2) : -1;
  spec.filter = core::Filter(input.below(2));
  take_range(input, 0.001, 1, spec.area);
  take_range(input, 0.05, 20, spec.aspect);
  spec.keep = (1 + input.below(255)) / 255.0;
  spec.flip_p = probability(input);
  spec.vflip_p = probability(input);
  spec.turn_p = probability(input);
  spec.rotate_p = probability(input);
  take_range(input, -400, 400, spec.degrees);
  spec.rotate_filter = core::RotateFilter(input.below(2));
  spec.jitter_p = probability(input);
  take_range(input, 0, 3, spec.brightness);
  take_range(input, 0, 3, spec.contrast);
  take_range(input, 0, 3, spec.saturation);
  take_range(input, -0.5, 0.5, spec.hue);
  spec.grayscale_p = probability(input);
  spec.blur_p = probability(input);
  take_range(input, 0, 12, spec.sigma_px);
  spec.blur = core::BlurKind(input.below(2));
  spec.solarize_p = probability(input);
  spec.threshold = input.take<uint8_t>() / 255.0;
  spec.posterize_p = probability(input);
  spec.bits = input.from_to(0, 8);
  spec.erase_p = probability(input);
  take_range(input, 0.01, 1, spec.erase_area);
  take_range(input, 0.1, 10, spec.erase_aspect);
  spec.erase_value = float(input.pick({0.0, 1.0, 0.5, -3.0, 1000.0}));
  if (!to_uint8 && input.coin()) {
    for (int c = 0; c < channels; ++c) {
      spec.mean.push_back(input.take<uint8_t>() / 255.0f);
      spec.std.push_back(0.05f + input.take<uint8_t>() / 100.0f);
    }
  }
  // Any order of the steps; the custom one behind the crop.
  core::Step steps[core::kMaxSteps] = {core::Step::Crop,  core::Step::Jitter,   core::Step::Grayscale,
                                       core::Step::Blur,  core::Step::Solarize, core::Step::Posterize,
                                       core::Step::Custom};
  for (int i = core::kMaxSteps - 1; i > 0; --i) std::swap(steps[i], steps[input.below(i + 1)]);
  core::Step* const crop = std::find(steps, steps + core::kMaxSteps, core::Step::Crop);
  core::Step* const custom = std::find(steps, steps + core::kMaxSteps, core::Step::Custom);
  if (custom < crop) std::swap(*custom, *crop);
  spec.step_count = core::kMaxSteps;
  std::copy_n(steps, core::kMaxSteps, spec.steps);
  spec.part = core::Part(input.pick({0, 0, 0, 1, 2}));
  return spec;
}

// The image, or that part of a smaller copy of it that memory holds, in memory of just that size.
struct Image {
  cpu::ImageView view;
  std::vector<uint8_t> pixels;

  void fill(uint32_t seed) {
    const cpu::PixelType type = view.type;
    const int64_t row = cpu::row_bytes(view);
    const bool planar = type == cpu::PixelType::Float32;
    view.stride = planar ? row / view.channels : row + 2 * int64_t(seed % 3);
    view.plane = planar ? view.stride * view.rows : 0;
    pixels.resize(size_t(view.stride) * size_t(view.rows - 1) * 1 + size_t(planar ? view.stride : row));
    if (planar) pixels.resize(size_t(view.stride) * size_t(view.rows) * size_t(view.channels));
    // Noise, or one of two extremes in blocks, from which overflow comes most easily.
    for (size_t i = 0; i < pixels.size(); ++i) {
      seed = seed * 1664525u + 1013904223u;
      pixels[i] = seed & 0x10000 ? uint8_t(seed >> 24) : (i / 16 & 1 ? 255 : 0);
    }
    if (planar) {
      auto* values = reinterpret_cast<float*>(pixels.data());
      for (size_t i = 0; i < pixels.size() / sizeof(float); ++i) values[i] = float(pixels[4 * i]) / 255;
    }
    view.pixels = pixels.data();
  }
};

bool all_finite(const uint8_t* data, size_t bytes, cpu::DType dtype) {
  const auto count = bytes / size_t(cpu::dtype_size(dtype));
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, data + i * size_t(cpu::dtype_size(dtype)), size_t(cpu::dtype_size(dtype)));
    const uint32_t exponent = dtype == cpu::DType::Float32   ? 0x7F800000u
                              : dtype == cpu::DType::Float16 ? 0x7C00u
                                                             : 0x7F80u;
    if ((bits & exponent) == exponent) return false;
  }
  return true;
}

void fuzz_render(Bytes input) {
  static cpu::Renderer used;  // its memory is full of what was rendered before
  Image image;
  cpu::ImageView& view = image.view;
  view.channels = input.pick({3, 3, 3, 1, 2, 4, 5});
  const auto dtype = cpu::DType(input.below(4));
  const bool to_uint8 = dtype == cpu::DType::UInt8;
  const bool channels_last = input.coin();
  core::ViewSpec specs[2];
  specs[1] = take_spec(input, view.channels, to_uint8);
  const core::ViewSpec& spec = specs[1];
  specs[0].size = 8;
  specs[0].turn_p = specs[0].flip_p = 0.5;
  view.height = input.from_to(1, 64);
  view.width = input.from_to(1, 64);
  if (const int longer = input.below(8); longer < 2) (longer ? view.height : view.width) *= 1 + input.below(12);
  view.type = cpu::PixelType(input.below(3));
  const bool after = spec.part == core::Part::AfterCustom;
  if (after) {
    view.type = cpu::PixelType::Float32;
    view.height = view.width = spec.size;
  }

  // A plan that was drawn, and perhaps edited.
  core::ViewPlan plans[2];
  core::DrawKey key;
  key.index = input.take<uint16_t>();
  core::draw_views(specs, 2, key, view.height, view.width, plans);
  core::ViewPlan& plan = plans[1];
  const int edits = std::max(0, input.below(8) - 3);
  auto* const fields = reinterpret_cast<float*>(&plan);
  for (int i = 0; i < edits; ++i) fields[input.below(core::kPlanFieldCount)] = edge(input);
  if (plan.sigma_px > 50 && plan.sigma_px <= 1000) plan.sigma_px = 50;  // right, but slow

  // All of the image, what this view needs of it, or any part.
  bool fits = edits == 0;
  view.whole();
  switch (view.type == cpu::PixelType::Float32 ? 0 : input.below(3)) {
    case 1: {
      core::ViewPlan drawn[2];
      core::draw_views(specs, 2, key, view.height, view.width, drawn);
      const cpu::Needed needed = cpu::needed_by(specs + 1, drawn + 1, 1, view.height, view.width, input.coin());
      view.shrink = needed.shrink;
      view.top = needed.window.top;
      view.left = needed.window.left;
      view.rows = needed.window.rows;
      view.columns = needed.window.columns;
      break;
    }
    case 2: {
      fits = false;
      view.shrink = 1 << input.below(4);
      view.whole();
      view.top = input.below(view.rows);
      view.left = input.below(view.columns);
      view.rows = input.from_to(1, view.rows - view.top);
      view.columns = input.from_to(1, view.columns - view.left);
      break;
    }
    default: break;
  }
  image.fill(input.take<uint32_t>());

  // Every value must be what the input says, whatever was in the output and in the renderer's memory before.
  const int64_t position = input.below(2);
  const size_t bytes = size_t(view.channels) * size_t(spec.size) * size_t(spec.size) * size_t(cpu::dtype_size(dtype));
  cpu::Renderer fresh;
  std::vector<uint8_t> first;
  for (const bool again : {false, true}) {
    Guarded out(bytes, again && to_uint8 ? 0x00 : 0xFF);  // all ones is NaN in every type of float
    uint8_t* const begin = out.data() - position * int64_t(bytes);
    bool refused = false;
    try {
      (again ? fresh : used).render(view, spec, plan, {begin, dtype, channels_last}, position);
    } catch (const std::invalid_argument& error) {
      PROMISE(std::strlen(error.what()) > 0);
      refused = true;
    }
    PROMISE(out.intact());
    if (refused) {
      const bool erasing = to_uint8 && plan.erase_height > 0;
      PROMISE(!fits || view.channels != 3 || erasing);
      return;
    }
    if (!to_uint8) PROMISE(all_finite(out.data(), bytes, dtype));
    if (!again) first.assign(out.data(), out.data() + bytes);
    if (again) PROMISE(std::memcmp(first.data(), out.data(), bytes) == 0);
  }
}

// Caches: a file gives the pixels that were stored, or nothing, or an error.

// Offsets in a file of version 1; see FileCache::Header and Entry.
constexpr size_t kHeaderHash = 1088, kSizeField = 1160, kTableHash = 1168, kCompleteHash = 1192;
constexpr size_t kTable = 4096, kEntryBytes = 40;
constexpr int kSamples = 5;

class Folder {
 public:
  Folder() {
    char name[] = "/dev/shm/fastssl-fuzz-XXXXXX", other[] = "/tmp/fastssl-fuzz-XXXXXX";
    const char* made = mkdtemp(name);
    if (!made) made = mkdtemp(other);
    PROMISE(made);
    path_ = made;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file() const { return path_ + "/cache"; }

 private:
  std::string path_;
};

const Folder& folder() {
  static const Folder folder;
  return folder;
}

std::vector<uint8_t> read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_all(const std::string& path, const std::vector<uint8_t>& data) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  PROMISE(fd >= 0);
  PROMISE(data.empty() || ::write(fd, data.data(), data.size()) == ssize_t(data.size()));
  ::close(fd);
}

Image cached_image(int i) {
  Image image;
  image.view.height = 3 + i;
  image.view.width = 9 - i;
  image.view.channels = 1 + i % 4;
  image.view.shrink = i % 2 + 1;
  image.view.type = i == 3 ? cpu::PixelType::UInt16 : cpu::PixelType::UInt8;
  image.view.whole();
  image.fill(uint32_t(3 * i + 1));
  return image;
}

cpu::FileCache::Setup setup() {
  cpu::FileCache::Setup out;
  out.path = folder().file();
  out.samples = kSamples;
  out.fingerprint = std::string(32, 'f');
  out.rule = "rule";
  return out;
}

// A complete file, and a part with some of its images.
struct Files {
  std::vector<uint8_t> complete, part;
  Files() {
    cpu::FileCache cache(setup());
    for (int i : {0, 1, 3}) cache.keep(i, cached_image(i).view, "label of an image");
    part = read_all(folder().file() + ".part");
    cache.keep(2, cached_image(2).view);
    cache.absent(4);
    cache.finish();
    complete = read_all(folder().file());
    PROMISE(!complete.empty() && !part.empty());
  }
};

template <typename T>
void put(std::vector<uint8_t>& file, size_t at, T value) {
  if (at + sizeof(T) <= file.size()) std::memcpy(file.data() + at, &value, sizeof(T));
}

template <typename T>
T get(const std::vector<uint8_t>& file, size_t at) {
  T value{};
  if (at + sizeof(T) <= file.size()) std::memcpy(&value, file.data() + at, sizeof(T));
  return value;
}

// Makes the checksums right again, as whoever edits a file on purpose could.
void repair(std::vector<uint8_t>& file, int which) {
  if (file.size() < kTable) return;
  if (which & 1) put(file, kHeaderHash, core::checksum(file.data(), kHeaderHash));
  if (which & 2) {
    const auto samples = get<int64_t>(file, 16);
    if (samples >= 0 && samples <= int64_t((file.size() - kTable) / kEntryBytes))
      put(file, kTableHash, core::checksum(file.data() + kTable, size_t(samples) * kEntryBytes));
  }
  if (which & 8) {
    const auto hash = get<uint64_t>(file, kHeaderHash);
    put(file, kCompleteHash, core::checksum(file.data() + kSizeField, kCompleteHash - kSizeField, hash));
  }
}

bool same(const cpu::ImageView& a, const cpu::ImageView& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels || a.shrink != b.shrink) return false;
  if (a.type != b.type || a.rows != b.rows || a.columns != b.columns) return false;
  for (int y = 0; y < a.rows; ++y) {
    const auto* p = static_cast<const uint8_t*>(a.pixels) + y * a.stride;
    const auto* q = static_cast<const uint8_t*>(b.pixels) + y * b.stride;
    if (std::memcmp(p, q, size_t(cpu::row_bytes(a))) != 0) return false;
  }
  return true;
}

volatile uint64_t sink;  // what is written here was read

void use(cpu::FileCache& cache, const std::vector<bool>& known) {
  cpu::Scratch<uint8_t> buffer;
  for (int i = -1; i <= kSamples; ++i) {
    cpu::ImageView found;
    const bool inside = i >= 0 && i < kSamples;
    const Image image = cached_image(std::clamp(i, 0, kSamples - 1));
    if (cache.find(i, buffer, found)) {
      PROMISE(i >= 0 && i < cache.samples());
      // Whoever wrote a checksum of his own may have stored other pixels: they need only be there.
      if (inside && known[size_t(i)]) {
        PROMISE(same(image.view, found));
      } else {
        uint64_t sum = 0;
        for (int y = 0; y < found.rows; ++y)
          sum += core::checksum(static_cast<const uint8_t*>(found.pixels) + y * found.stride,
                                size_t(cpu::row_bytes(found)));
        sink = sum;
      }
    } else if (inside && cache.wants(i, cpu::row_bytes(image.view) * image.view.rows)) {
      cache.keep(i, image.view);
      PROMISE(!cache.error().empty() || cache.find(i, buffer, found));
      PROMISE(!cache.error().empty() || same(image.view, found));
    }
  }
  (void)cache.counts();
  (void)cache.error();
}

void fuzz_cache(Bytes input) {
  static const Files files;
  const int form = input.take<uint8_t>();
  const bool is_part = form & 1, raw = form & 2, any = form & 4 && !is_part;
  const int repaired = form >> 4;
  std::vector<bool> known(kSamples, true);
  std::vector<uint8_t> file = is_part ? files.part : files.complete;
  if (raw) {
    file.assign(input.rest(), input.rest() + input.left());
    known.assign(kSamples, false);
  } else {
    if (form & 8) file.resize(std::min(file.size(), size_t(input.take<uint16_t>())));
    while (input.left() > 0) {
      size_t at = input.take<uint16_t>();
      const int count = input.from_to(1, 16);
      for (int k = 0; k < count && input.left() > 0; ++k, ++at) {
        const auto value = input.take<uint8_t>();
        if (at >= file.size()) continue;
        file[at] = value;
        if (at >= kTable && at < kTable + kSamples * kEntryBytes) known[(at - kTable) / kEntryBytes] = false;
      }
    }
  }
  repair(file, repaired);
  const std::string path = folder().file(), part = path + ".part";
  ::unlink(path.c_str());
  ::unlink(part.c_str());
  write_all(is_part ? part : path, file);
  cpu::FileCache::Setup with = setup();
  with.any = any;
  try {
    cpu::FileCache cache(with);
    (void)cache.idle();
    if (cache.complete()) (void)cache.damaged(1);
    for (int i = -1; i <= kSamples; ++i) (void)cache.label(i);
    use(cache, known);
    if (!cache.complete() && !any) {
      cpu::FileCache beside(with);  // as another process would
      use(beside, known);
      for (int i = 0; i < kSamples; ++i) cache.absent(i);
      cache.finish();
      use(beside, known);
    }
    use(cache, known);
  } catch (const cpu::CacheError& error) {
    PROMISE(std::strlen(error.what()) > 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes input(data, size);
  switch (input.below(3)) {
    case 0: fuzz_decode(input); break;
    case 1: fuzz_render(input); break;
    default: fuzz_cache(input); break;
  }
  return 0;
}

#if defined(FASTSSL_FUZZ_REPLAY)
int main(int count, char** names) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < count; ++i) {
    if (!std::filesystem::is_directory(names[i])) {
      files.emplace_back(names[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(names[i])) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    std::printf("%s\n", path.c_str());  // the last one named is the one that broke it
    std::fflush(stdout);
    const std::vector<uint8_t> read = read_all(path.string());
    const std::unique_ptr<uint8_t[]> data(new uint8_t[read.size()]);  // of just that size
    std::copy(read.begin(), read.end(), data.get());
    LLVMFuzzerTestOneInput(data.get(), read.size());
  }
  std::printf("%zu inputs\n", files.size());
  return files.empty();
}
#endif
