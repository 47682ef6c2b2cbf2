// Every native function, called as the bindings call it, for AddressSanitizer and UndefinedBehaviorSanitizer (`make sanitize`).
//
// What the numbers should be is tested in Python against float64; here are memory, threads, errors, and what needs no reference.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

// After <cstdio>, which it needs.
#include <jpeglib.h>

#include "core/draw.h"
#include "core/hash.h"
#include "core/philox.h"
#include "core/plan.h"
#include "core/resample.h"
#include "core/smallest_crop.h"
#include "cpu/buffers.h"
#include "cpu/cache.h"
#include "cpu/cache_file.h"
#include "cpu/engine.h"
#include "cpu/file.h"
#include "cpu/jpeg.h"
#include "cpu/render.h"
#include "cpu/rows.h"
#include "cpu/thread_pool.h"
#include "cuda/device.h"
#include "cuda/probe.h"
#include "tests/check.h"

using namespace fastssl;

namespace {

std::vector<uint8_t> encode(int width, int height, J_COLOR_SPACE space, bool progressive) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = JDIMENSION(width);
  info.image_height = JDIMENSION(height);
  info.input_components = space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK ? 4 : 3;
  info.in_color_space = space;
  jpeg_set_defaults(&info);
  if (progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(size_t(width) * size_t(info.input_components));
  for (int y = 0; y < height; ++y) {
    for (size_t i = 0; i < row.size(); ++i)
      row[i] = uint8_t((noise(uint32_t(i / 24 + size_t(y / 8) * 977)) & 127) + 64);
    uint8_t* p = row.data();
    jpeg_write_scanlines(&info, &p, 1);
  }
  jpeg_finish_compress(&info);
  std::vector<uint8_t> out(data, data + size);
  jpeg_destroy_compress(&info);
  std::free(data);
  return out;
}

void test_random() {
  const core::Random4 zero = core::philox4x32(0, 0, 0, 0, 0, 0);
  CHECK(zero.v[0] == 0x6627E8D5u && zero.v[1] == 0xE169C58Du && zero.v[2] == 0xBC57AC4Cu && zero.v[3] == 0x9B00DBD8u);
  const uint32_t ones = 0xFFFFFFFFu;
  const core::Random4 full = core::philox4x32(ones, ones, ones, ones, ones, ones);
  CHECK(full.v[0] == 0x408F276Du && full.v[1] == 0x41C83B0Eu && full.v[2] == 0xA20BC7C6u && full.v[3] == 0x6D5451FDu);
  CHECK(core::uniform(0) > 0 && core::uniform(ones) < 1);
  CHECK(core::kMaskStream >= core::kFirstReservedView &&
        core::kMaskStream + core::kMaskStreams <= core::kShuffleStream);
  for (const int64_t n : {1, 2, 3, 1000}) {
    std::vector<int64_t> order(size_t(n), -1);
    core::draw_permutation(7, 3, n, order.data());
    std::vector<bool> seen(size_t(n), false);
    for (const int64_t i : order) seen[size_t(i)] = true;
    for (const bool s : seen) CHECK(s);
  }
}

void test_draws_lie_inside() {
  core::ViewSpec spec = busy_view(8);
  const int sizes[][2] = {{1, 1}, {1, 20000}, {20000, 1}, {10, 20000}, {333, 500}, {2, 3}};
  for (uint64_t i = 0; i < 2000; ++i) {
    const auto& size = sizes[i % 6];
    spec.crop = i % 5 ? core::CropKind::Random : core::CropKind::Center;
    const core::ViewPlan p = core::draw_view(spec, {.seed = 1, .index = i}, size[0], size[1], nullptr);
    CHECK(p.top >= 0 && p.left >= 0 && p.height >= 1 && p.width >= 1);
    CHECK(p.top + p.height <= float(size[0]) && p.left + p.width <= float(size[1]));
  }
}

void test_jpeg() {
  cpu::JpegDecoder decoder;
  for (const J_COLOR_SPACE space : {JCS_RGB, JCS_GRAYSCALE, JCS_CMYK}) {
    for (const bool progressive : {false, true}) {
      for (const int width : {1, 17, 240}) {
        const std::vector<uint8_t> data = encode(width, 33, space, progressive);
        const cpu::ImageSize size = decoder.open(data.data(), data.size());
        CHECK(size.width == width && size.height == 33);
        std::vector<uint8_t> pixels(size_t(width) * 33 * 3);
        decoder.decode(pixels.data(), int64_t(3) * width);
        // Cut anywhere, it is an error and nothing else.
        for (size_t cut = 0; cut + 2 < data.size(); cut += 1 + data.size() / 60) {
          const std::vector<uint8_t> part(data.begin(), data.begin() + ssize_t(cut));
          CHECK(throws<cpu::DecodeError>([&] {
            decoder.open(part.data(), part.size());
            decoder.decode(pixels.data(), int64_t(3) * width);
          }));
        }
      }
    }
  }
  // A part has the pixels of the whole, in every size.
  for (const J_COLOR_SPACE space : {JCS_RGB, JCS_GRAYSCALE, JCS_CMYK}) {
    const std::vector<uint8_t> data = encode(161, 97, space, space == JCS_GRAYSCALE);
    for (const int shrink : {1, 2, 4, 8}) {
      const int rows = (97 + shrink - 1) / shrink, columns = (161 + shrink - 1) / shrink;
      decoder.open(data.data(), data.size());
      const cpu::Area all = decoder.begin({0, 0, rows, columns}, shrink, 3);
      CHECK(all.top == 0 && all.left == 0 && all.rows == rows && all.columns == columns);
      std::vector<uint8_t> whole(size_t(rows) * size_t(columns) * 3);
      decoder.read(whole.data(), int64_t(3) * columns);
      for (uint32_t i = 0; i < 40; ++i) {
        const auto below = [&](uint32_t k, int n) { return int(noise(4 * i + k) % uint32_t(n)); };
        const int top = below(0, rows), left = below(1, columns);
        const cpu::Area window{top, left, 1 + below(2, rows - top), 1 + below(3, columns - left)};
        decoder.open(data.data(), data.size());
        const cpu::Area area = decoder.begin(window, shrink, 3);
        std::vector<uint8_t> part(size_t(area.rows) * size_t(area.columns) * 3);
        decoder.read(part.data(), int64_t(3) * area.columns);
        bool same = area.top <= top && area.left <= left && area.top + area.rows >= top + window.rows &&
                    area.left + area.columns >= left + window.columns;
        for (int y = 0; same && y < window.rows; ++y) {
          for (int x = 0; same && x < 3 * window.columns; ++x) {
            same = part[size_t((top - area.top + y) * area.columns * 3 + (left - area.left) * 3 + x)] ==
                   whole[size_t((top + y) * columns * 3 + left * 3 + x)];
          }
        }
        CHECK(same);
      }
    }
  }
  // Damaged anywhere, it is an image or an error.
  const std::vector<uint8_t> good = encode(64, 48, JCS_RGB, true);
  for (uint32_t i = 0; i < 3000; ++i) {
    std::vector<uint8_t> bad = good;
    for (uint32_t j = 0; j < 3; ++j) bad[noise(4 * i + j) % bad.size()] = uint8_t(noise(4 * i + j + 100000));
    try {
      const cpu::ImageSize size = decoder.open(bad.data(), bad.size());
      if (int64_t(size.width) * size.height > 1 << 20) continue;
      std::vector<uint8_t> pixels(size_t(size.width) * size_t(size.height) * 3);
      decoder.decode(pixels.data(), int64_t(3) * size.width);
    } catch (const cpu::DecodeError&) {
    }
  }
  // One that lacks its tables is an error, and not decoded with those of the image before.
  std::vector<uint8_t> bare = encode(64, 48, JCS_RGB, false);
  for (size_t i = 2; bare[i + 1] != 0xDA;) {
    const size_t length = 2 + bare[i + 2] * size_t(256) + bare[i + 3];
    if (bare[i + 1] == 0xDB) {
      bare.erase(bare.begin() + ssize_t(i), bare.begin() + ssize_t(i + length));
    } else {
      i += length;
    }
  }
  for (cpu::JpegDecoder fresh; cpu::JpegDecoder* which : {&fresh, &decoder}) {
    CHECK(throws<cpu::DecodeError>([&] {
      std::vector<uint8_t> pixels(size_t(64) * 48 * 3);
      which->open(bare.data(), bare.size());
      which->decode(pixels.data(), 3 * 64);
    }));
  }
  // And the decoder is as good as new.
  decoder.open(good.data(), good.size());
  std::vector<uint8_t> pixels(size_t(64) * 48 * 3);
  decoder.decode(pixels.data(), 3 * 64);
  CHECK(!cpu::is_jpeg(good.data(), 2) && cpu::is_jpeg(good.data(), 3));
}

void test_taps() {
  for (const auto filter : {core::Filter::Bilinear, core::Filter::Bicubic}) {
    for (const double length : {0.25, 1.0, 7.0, 300.5}) {
      const core::Axis axis = core::make_axis(2.5, length, 9, 2, 2 + std::max(1, int(std::ceil(length + 0.5))), filter);
      std::vector<float> weight(size_t(core::axis_max_taps(axis)));
      for (int i = 0; i < axis.size; ++i) {
        const core::Taps taps = core::axis_taps(axis, i, weight.data());
        CHECK(taps.count >= 1 && size_t(taps.count) <= weight.size() && taps.first >= axis.low &&
              taps.first + taps.count <= axis.high);
        float sum = 0;
        for (int k = 0; k < taps.count; ++k) sum += weight[size_t(k)];
        CHECK(std::abs(sum - 1) < 1e-5f);
      }
    }
  }
}

void test_parallel_for() {
  for (const int threads : {1, 2, 7}) {
    std::vector<std::atomic<int>> hits(1000);
    cpu::parallel_for(1000, threads, [&](int64_t i) { hits[size_t(i)] += 1; });
    for (const auto& h : hits) CHECK(h == 1);
    CHECK(throws<std::runtime_error>([&] {
      cpu::parallel_for(1000, threads, [](int64_t i) {
        if (i == 500) throw std::runtime_error("stop");
      });
    }));
  }
}

std::string folder() {
  static std::string path = [] {
    char name[] = "/tmp/fastssl-native-XXXXXX";
    return std::string(mkdtemp(name));
  }();
  return path;
}

std::string write_file(const std::string& name, const std::vector<uint8_t>& data) {
  const std::string path = folder() + "/" + name;
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data.data()), std::streamsize(data.size()));
  return path;
}

void test_files() {
  cpu::Scratch<uint8_t> buffer;
  const std::string path = write_file("a", {1, 2, 3});
  CHECK(cpu::read_file(path, buffer) == 3 && buffer.at_least(0)[2] == 3);
  CHECK(throws<cpu::DecodeError>([&] { cpu::read_file(folder() + "/none", buffer); }));
  CHECK(throws<cpu::DecodeError>([&] { cpu::read_file(folder(), buffer); }));
  CHECK(throws<cpu::DecodeError>([&] { cpu::read_file("/dev/null", buffer); }));
  CHECK(throws<cpu::DecodeError>([&] { cpu::read_file(write_file("empty", {}), buffer); }));
}

void test_engine() {
  std::vector<uint8_t> jpeg = encode(80, 60, JCS_RGB, false);
  const std::string good = write_file("good.jpg", jpeg);
  const std::string other = write_file("other.png", {0x89, 'P', 'N', 'G'});
  jpeg.resize(jpeg.size() / 2);
  const std::string truncated = write_file("truncated.jpg", jpeg);
  const std::vector<uint8_t> pixels(size_t(5) * 4 * 3, 100);
  cpu::Callbacks callbacks;
  callbacks.fetch = [&](int64_t index) {
    if (index % 7 == 3) throw cpu::DecodeError("no such sample");
    cpu::Fetched f;
    f.owner = std::make_shared<std::vector<uint8_t>>(pixels);
    f.image = packed_image(static_cast<std::vector<uint8_t>*>(f.owner.get())->data(), 5, 4);
    return f;
  };
  callbacks.decode_other = [&](const uint8_t* bytes, size_t size) {
    CHECK(size == 4 && bytes[0] == 0x89);
    cpu::Fetched f;
    f.image = packed_image(pixels.data(), 5, 4);
    return f;
  };
  const std::vector<core::ViewSpec> views{busy_view(24), busy_view(9)};
  constexpr int kBatch = 20;
  for (const int threads : {1, 3}) {
    for (const bool abandon : {false, true}) {
      // As in the loader: what the threads write into lives longer than they do.
      std::vector<std::vector<float>> out;
      std::vector<std::vector<core::ViewPlan>> plans;
      std::vector<std::shared_ptr<cpu::Job>> jobs;
      for (int j = 0; j < 6; ++j) {
        for (const core::ViewSpec& view : views) out.emplace_back(size_t(kBatch) * 3 * size_t(view.size * view.size));
        plans.emplace_back(size_t(kBatch) * views.size());
      }
      cpu::Settings settings;
      settings.threads = threads;
      settings.views = views;
      settings.seed = 11;
      cpu::Engine engine(settings, callbacks);
      for (size_t j = 0; j < 6; ++j) {
        cpu::Samples samples;
        samples.epoch = uint32_t(j);
        for (int i = 0; i < kBatch; ++i) {
          samples.indices.push_back(i);
          samples.positions.push_back(kBatch - 1 - i);
          samples.paths.push_back(i % 4 == 0   ? good
                                  : i % 4 == 1 ? other
                                  : i == 6     ? truncated
                                  : i == 10    ? folder() + "/none"
                                               : "");
        }
        std::vector<cpu::Output> outputs{{out[2 * j].data()}, {out[2 * j + 1].data()}};
        jobs.push_back(std::make_shared<cpu::Job>(std::move(samples), std::move(outputs), plans[j].data()));
        engine.submit(jobs.back());
      }
      if (abandon) continue;
      for (const auto& job : jobs) {
        while (!job->wait(50)) continue;
        CHECK(job->failures().size() == 3);  // 3 (no such sample), 6 (truncated), 10 (missing)
      }
      CHECK(engine.times().images == 6 * (kBatch - 3));
      engine.close();
      engine.close();
    }
  }
}

void test_buffers() {
  auto pool = std::make_shared<cpu::BufferPool>(1);
  auto a = pool->lease(3 << 20);
  auto b = pool->lease(100);
  std::memset(a->data(), 1, a->size());
  void* const was = a->data();
  a.reset();
  a = pool->lease(3 << 20);
  CHECK(a->data() == was);
  a.reset();
  pool->close();
  pool.reset();
  std::memset(b->data(), 1, b->size());  // a lease outlives its pool's last other user
}

void test_checksum() {
  std::vector<uint8_t> data(300);
  for (size_t i = 0; i < data.size(); ++i) data[i] = uint8_t(noise(uint32_t(i)));
  std::vector<uint64_t> seen;
  for (size_t size = 0; size <= data.size(); ++size) seen.push_back(core::checksum(data.data(), size));
  for (size_t bit = 0; bit < 8 * data.size(); ++bit) {
    data[bit / 8] ^= uint8_t(1 << bit % 8);
    seen.push_back(core::checksum(data.data(), data.size()));
    data[bit / 8] ^= uint8_t(1 << bit % 8);
  }
  for (uint64_t seed = 1; seed < 100; ++seed) seen.push_back(core::checksum(data.data(), 0, seed));
  std::sort(seen.begin(), seen.end());
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
  // Files hold such values: another value here is another version of the file.
  CHECK(core::checksum("fastssl", 7) == 11929077879749112253ull);
}

// Image `i` of a cache's tests: sizes, types and channels differ, and rows have something between them.
struct Picture {
  explicit Picture(int i) {
    view.height = 1 + i % 13;
    view.width = 2 + i % 7;
    view.channels = 1 + i % 4;
    view.shrink = 1 << i % 4;
    view.type = i % 3 ? cpu::PixelType::UInt8 : cpu::PixelType::UInt16;
    view.whole();
    view.stride = (cpu::row_bytes(view) + 1) / 2 * 2 + 6 * (i % 2);
    pixels.resize(size_t(view.stride) * size_t(view.rows));
    for (size_t k = 0; k < pixels.size(); ++k) pixels[k] = uint8_t(noise(uint32_t(i * 1000) + uint32_t(k)));
    view.pixels = pixels.data();
  }
  bool is(const cpu::ImageView& other) const {
    bool same = other.height == view.height && other.width == view.width && other.channels == view.channels &&
                other.shrink == view.shrink && other.type == view.type && other.rows == view.rows &&
                other.columns == view.columns && other.top == 0 && other.left == 0;
    for (int y = 0; same && y < view.rows; ++y) {
      same = std::memcmp(static_cast<const uint8_t*>(other.pixels) + y * other.stride, pixels.data() + y * view.stride,
                         size_t(cpu::row_bytes(view))) == 0;
    }
    return same;
  }
  cpu::ImageView view;
  std::vector<uint8_t> pixels;
};

constexpr int kPictures = 300;

std::string label_of(int i) { return std::string(size_t(i % 5), char('a' + i % 26)); }

// Several threads look up, store and look up again, all of them all images, each in an order of its own.
void use_cache(cpu::Cache& cache, int64_t first = 0) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      cpu::Scratch<uint8_t> buffer;
      for (int round = 0; round < 3; ++round) {
        for (int k = 0; k < kPictures; ++k) {
          const int i = (k * (2 * t + 1) + 7 * t) % kPictures;  // each odd step visits every one that it can
          if (i < first) continue;
          const Picture picture(i);
          cpu::ImageView found;
          if (cache.find(i, buffer, found)) {
            wrong += !picture.is(found);
          } else if (i % 50 == 49) {
            cache.absent(i);
          } else if (cache.wants(i, cpu::row_bytes(picture.view) * picture.view.rows + 4)) {
            cache.keep(i, picture.view, label_of(i));
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

void test_memory_cache() {
  constexpr int kKept = kPictures - kPictures / 50;
  cpu::Scratch<uint8_t> buffer;
  cpu::ImageView found;
  for (const int64_t limit : {int64_t(1), int64_t(5000), int64_t(1) << 30}) {
    auto cache = std::make_shared<cpu::MemoryCache>(kPictures, limit);
    use_cache(*cache);
    const cpu::Cache::Counts counts = cache->counts();
    CHECK(counts.bytes <= limit && counts.images <= kKept);
    CHECK(limit == 1 ? counts.images == 0 : counts.images > 0);
    CHECK((counts.images < kKept) == (counts.left_out > 0));
    CHECK(!cache->find(-1, buffer, found) && !cache->find(kPictures, buffer, found));
    cache->keep(kPictures, Picture(0).view);
    // One on top has what is below, and its own.
    cpu::MemoryCache above(kPictures, limit, cache);
    CHECK(above.counts().images == counts.images);
    cache.reset();
    use_cache(above);
    CHECK(above.counts().images >= counts.images && above.counts().bytes <= limit);
  }
  cpu::MemoryCache large(2, int64_t(64) << 20);  // images that have a chunk of their own
  std::vector<uint8_t> pixels(size_t(3) * 2000 * 2000, 7);
  const cpu::ImageView image = packed_image(pixels.data(), 2000, 2000);
  large.keep(0, image);
  large.keep(1, image);
  CHECK(large.find(1, buffer, found) && std::memcmp(found.pixels, pixels.data(), pixels.size()) == 0);
  CHECK(large.counts().bytes >= 24000000 && large.counts().bytes < 24100000);
}

void test_file_cache() {
  const std::string path = folder() + "/pixels.cache";
  const auto setup = [&](const std::string& rule = "rule") {
    return cpu::FileCache::Setup{path, kPictures, std::string(32, 'f'), rule};
  };
  cpu::Scratch<uint8_t> buffer;
  cpu::ImageView found;
  {
    cpu::FileCache half(setup());
    use_cache(half, kPictures / 2);
    CHECK(!half.ready() && !half.complete());
    half.finish();  // too early
    CHECK(!std::filesystem::exists(path) && std::filesystem::exists(path + ".part"));
    CHECK(throws<cpu::CacheError>([&] { cpu::FileCache other(setup("another rule")); }));
  }
  {
    // Entries that no image can have, as a machine that went down may leave them: they are stored anew, in their place.
    const int first = kPictures - 3;
    std::fstream part(path + ".part", std::ios::in | std::ios::out | std::ios::binary);
    const auto put = [&](int i, int64_t at, auto value) {
      part.seekp(4096 + 40 * i + at).write(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    put(first, 16, int32_t(INT32_MAX));  // height, width and channels
    put(first, 20, int32_t(INT32_MAX));
    put(first, 24, uint16_t(65535));
    put(first + 1, 0, int64_t(INT64_MAX));  // offset
    part.close();
    cpu::FileCache half(setup());
    CHECK(half.find(first - 1, buffer, found) && Picture(first - 1).is(found));
    for (const int i : {first, first + 1}) {
      CHECK(!half.find(i, buffer, found) && half.wants(i, 1));
      half.keep(i, Picture(i).view, label_of(i));
      CHECK(half.find(i, buffer, found) && Picture(i).is(found));
    }
    CHECK(half.error().empty() && half.counts().bytes < 1 << 20);
  }
  {
    // Two that fill it at once, as two processes would.
    cpu::FileCache one(setup()), other(setup());
    CHECK(one.label(kPictures - 2) == label_of(kPictures - 2) && !one.label(0));
    CHECK(one.find(kPictures - 2, buffer, found) && Picture(kPictures - 2).is(found));
    std::thread thread([&] { use_cache(other); });
    use_cache(one);
    thread.join();
    CHECK(one.ready() && other.ready());
    one.finish();
    other.finish();
    CHECK(one.find(3, buffer, found) && one.complete() && Picture(3).is(found));
    use_cache(other);
    CHECK(other.complete() && other.error().empty());
    CHECK(one.counts().images == kPictures - kPictures / 50);
  }
  CHECK(std::filesystem::exists(path) && !std::filesystem::exists(path + ".part"));
  {
    cpu::FileCache again(setup());
    CHECK(again.complete() && again.label(3) == label_of(3) && !again.label(49) && !again.label(-1) &&
          again.damaged(3).empty());
    use_cache(again);
    CHECK(again.counts().misses > 0 && !again.find(49, buffer, found) && !again.find(-1, buffer, found));
    CHECK(throws<cpu::CacheError>([&] { cpu::FileCache other(setup("another rule")); }));
  }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto size = int64_t(std::filesystem::file_size(path));
  for (int64_t at = 0; at < size; at += 1 + at / 40) {
    char was = 0, flipped = 0;
    file.seekg(at).get(was);
    flipped = char(was ^ 16);
    file.seekp(at).put(flipped).flush();
    try {
      cpu::FileCache cache(setup());
      use_cache(cache);  // whatever it finds is right
    } catch (const cpu::CacheError&) {
    }
    file.seekp(at).put(was).flush();
  }
  for (int64_t left = size - 1; left >= 0; left = left * 3 / 4 - 1) {
    std::filesystem::resize_file(path, uintmax_t(left));
    CHECK(throws<cpu::CacheError>([&] { cpu::FileCache cache(setup()); }));
  }
}

void test_shrink() {
  core::ViewSpec whole, crop;
  whole.crop = core::CropKind::Whole;
  whole.size = 100;
  crop.size = 10;
  crop.of = 0;
  const core::ViewSpec views[] = {whole, crop};
  CHECK(core::recipe_shrink(views, 1, 800, 900) == 8 && core::recipe_shrink(views, 1, 799, 900) == 4);
  CHECK(core::recipe_shrink(views, 2, 800, 900) == 8 && core::recipe_shrink(views, 1, 3, 1) == 1);
  CHECK(core::recipe_shrink(views, 0, 800, 900) == 8);
}

void test_probe() {
  std::vector<float> pixels(30), out(10 * cuda::kProbeOutputs);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = float(noise(uint32_t(i)) >> 8) * 0x1p-24f;
  cuda::core_probe_host(pixels.data(), 10, 0.75f, out.data());
  for (const float v : out) CHECK(v >= 0 && v <= 1);
  CHECK(cuda::device_count() >= 0);
  CHECK(std::strlen(cpu::row_kernels().name) > 0);
}

}  // namespace

int main() {
  test_random();
  test_draws_lie_inside();
  test_taps();
  test_jpeg();
  test_entropy();
  test_render();
  test_edited_plans();
  test_masks();
  test_cuda_render();
  test_cuda_contrastive();
  test_cuda_wide();
  test_parallel_for();
  test_files();
  test_engine();
  test_buffers();
  test_checksum();
  test_memory_cache();
  test_file_cache();
  test_shrink();
  test_probe();
  std::filesystem::remove_all(folder());
  std::printf("%d failures\n", failures);
  return failures != 0;
}
