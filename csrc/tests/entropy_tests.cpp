// Our own decoding of Huffman codes against libjpeg's: the same pixels, the same errors, whatever the file.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// After <cstdio>, which it needs.
#include <jpeglib.h>

#include "cpu/jpeg.h"
#include "tests/check.h"

using namespace fastssl;

namespace {

struct Encoding {
  int width = 64, height = 48;
  J_COLOR_SPACE space = JCS_YCbCr;
  int h = 2, v = 2;  // sampling factors of the first component; the others' are 1
  int quality = 90;
  bool optimize = false;
  int restart_interval = 0;
  bool progressive = false, arithmetic = false;
  int code_length = 0;  // of all codes; 0: of libjpeg's tables
  bool rough = false;   // noise
};

// One table in which every symbol of another has a code of the same length.
void flatten(JHUFF_TBL& table, int length) {
  int n = 0;
  for (int l = 1; l <= 16; ++l) n += table.bits[l], table.bits[l] = 0;
  table.bits[length] = uint8_t(n);
}

std::vector<uint8_t> encode(const Encoding& as) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = JDIMENSION(as.width);
  info.image_height = JDIMENSION(as.height);
  info.input_components = as.space == JCS_GRAYSCALE ? 1 : as.space == JCS_CMYK ? 4 : 3;
  info.in_color_space = as.space == JCS_YCbCr ? JCS_RGB : as.space;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, as.space);
  jpeg_set_quality(&info, as.quality, TRUE);
  info.comp_info[0].h_samp_factor = as.h;
  info.comp_info[0].v_samp_factor = as.v;
  info.optimize_coding = as.optimize;
  info.arith_code = as.arithmetic;
  info.restart_interval = unsigned(as.restart_interval);
  if (as.progressive) jpeg_simple_progression(&info);
  for (int i = 0; as.code_length > 0 && i < 2; ++i) {
    flatten(*info.dc_huff_tbl_ptrs[i], as.code_length);
    flatten(*info.ac_huff_tbl_ptrs[i], as.code_length);
  }
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(size_t(as.width) * size_t(info.input_components));
  for (int y = 0; y < as.height; ++y) {
    for (size_t i = 0; i < row.size(); ++i) {
      const auto place = uint32_t(i) + uint32_t(y) * 100003u;
      row[i] = uint8_t(as.rough ? noise(place)
                                : (noise(uint32_t(i / 24 + size_t(y / 8) * 977)) & 127) + 64 + noise(place) % 8);
    }
    uint8_t* p = row.data();
    jpeg_write_scanlines(&info, &p, 1);
  }
  jpeg_finish_compress(&info);
  std::vector<uint8_t> out(data, data + size);
  jpeg_destroy_compress(&info);
  std::free(data);
  return out;
}

struct Request {
  cpu::Area window;  // in 256ths
  int shrink = 1, channels = 3;
};
const Request kWhole{{0, 0, 256, 256}};

struct Outcome {
  std::string error;
  std::vector<uint8_t> pixels;
  bool operator==(const Outcome&) const = default;
};

Outcome decode(cpu::JpegDecoder& decoder, const std::vector<uint8_t>& data, const Request& request) {
  Outcome out;
  try {
    const cpu::ImageSize size = decoder.open(data.data(), data.size());
    const int rows = (size.height + request.shrink - 1) / request.shrink;
    const int columns = (size.width + request.shrink - 1) / request.shrink;
    if (int64_t(rows) * columns > 1 << 22) return out;  // a header that was changed
    const cpu::Area& in = request.window;
    cpu::Area window{in.top * rows / 256, in.left * columns / 256, 0, 0};
    window.rows = std::max(1, in.rows * (rows - window.top) / 256);
    window.columns = std::max(1, in.columns * (columns - window.left) / 256);
    const int channels = size.channels == 1 ? request.channels : 3;
    const cpu::Area area = decoder.begin(window, request.shrink, channels);
    const size_t row = size_t(area.columns) * size_t(channels);
    out.pixels.assign(row * size_t(area.rows), 0);
    decoder.read(out.pixels.data(), int64_t(row));
  } catch (const cpu::DecodeError& error) {
    out.error = error.what();
    out.pixels.clear();
  }
  return out;
}

cpu::JpegDecoder& libjpeg() {
  static cpu::JpegDecoder decoder(cpu::Huffman::Libjpeg);
  return decoder;
}

bool same(cpu::JpegDecoder& ours, const std::vector<uint8_t>& data, const Request& request = kWhole) {
  return decode(ours, data, request) == decode(libjpeg(), data, request);
}

// Good files: decoded by ours, which takes tiny ones only when their tables come again.
void check_good(const std::vector<uint8_t>& data, const Request& request = kWhole) {
  cpu::JpegDecoder ours;
  for (int i = 0; i < 2; ++i) {
    const Outcome got = decode(ours, data, request);
    CHECK(got.error.empty());
    CHECK(got == decode(libjpeg(), data, request));
    CHECK(libjpeg().huffman() == cpu::Huffman::Libjpeg);
  }
  CHECK(ours.huffman() == cpu::Huffman::Ours);
}

// After this, such files are decoded by ours if they are good.
void make_ready(cpu::JpegDecoder& ours, const std::vector<uint8_t>& good) {
  for (int i = 0; i < 2; ++i) CHECK(same(ours, good));
  CHECK(ours.huffman() == cpu::Huffman::Ours);
}

// Damaged ones: what is decoded afterwards does not depend on them.
void check_damaged(cpu::JpegDecoder& ours, const std::vector<uint8_t>& data) {
  CHECK(same(ours, data));
  CHECK(same(ours, data, {{64, 100, 64, 64}, 2}));
}

void test_good_files() {
  const int factors[][2] = {{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}, {4, 2}};
  for (const auto& f : factors) {
    for (const int quality : {1, 30, 75, 95, 100}) {
      for (const bool optimize : {false, true}) {
        check_good(
            encode({.width = 197, .height = 115, .h = f[0], .v = f[1], .quality = quality, .optimize = optimize}));
      }
    }
  }
  for (int quality = 1; quality <= 100; ++quality) {
    check_good(encode({.quality = quality, .optimize = quality % 2 == 0, .rough = quality % 3 == 0}));
  }
  for (const J_COLOR_SPACE space : {JCS_GRAYSCALE, JCS_CMYK, JCS_RGB}) {
    for (const int restart_interval : {0, 1, 5}) {
      const std::vector<uint8_t> data =
          encode({.width = 133, .height = 71, .space = space, .h = 1, .v = 1, .restart_interval = restart_interval});
      check_good(data);
      check_good(data, {{0, 0, 256, 256}, 1, 1});
    }
  }
  for (int side = 1; side <= 34; ++side) {
    check_good(encode({.width = side, .height = 35 - side}));
    check_good(encode({.width = 35 - side, .height = side, .h = 1, .v = 1, .rough = true}));
  }
  // More data than is unstuffed at once, of all code lengths, and of none but one.
  for (const int quality : {90, 100}) {
    for (const int restart_interval : {0, 1, 7, 300}) {
      check_good(encode(
          {.width = 500, .height = 300, .quality = quality, .restart_interval = restart_interval, .rough = true}));
    }
  }
  for (int length = 8; length <= 16; ++length) {
    check_good(encode({.width = 100, .height = 90, .quality = 97, .code_length = length, .rough = length % 2 == 0}));
  }
}

// The same file with other symbols for the codes of its AC tables: coefficients of all sizes, up to the 15 bits that no encoder
// writes, one behind the other. The height is less, so that the data does not run out.
std::vector<uint8_t> with_other_symbols(std::vector<uint8_t> data, int height, uint32_t seed) {
  for (size_t at = 2; data[at + 1] != 0xDA;) {
    const size_t next = at + 2 + size_t(data[at + 2]) * 256 + data[at + 3];
    if (data[at + 1] == 0xC0) {
      data[at + 5] = uint8_t(height >> 8);
      data[at + 6] = uint8_t(height);
    }
    if (data[at + 1] == 0xC4 && data[at + 4] & 0x10) {
      for (size_t i = at + 4 + 17; i < next; ++i) {
        const uint32_t any = noise(seed + uint32_t(i));
        data[i] = uint8_t(any % 16 == 0 ? 0 : any / 16 % 15 + 1);
      }
    }
    at = next;
  }
  return data;
}

void test_coefficients_of_all_sizes() {
  int decoded = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const std::vector<uint8_t> data = with_other_symbols(
        encode({.width = 64, .height = 600, .h = 1, .v = 1, .quality = 95, .optimize = seed % 2 == 0, .rough = true}),
        48, 1000 * seed);
    cpu::JpegDecoder ours;
    CHECK(same(ours, data));
    decoded += ours.huffman() == cpu::Huffman::Ours;
    CHECK(same(ours, data, {{100, 100, 64, 64}}));
  }
  CHECK(decoded > 20);
}

void test_windows() {
  for (const int f : {1, 2}) {
    for (const int restart_interval : {0, 3}) {
      const std::vector<uint8_t> data =
          encode({.width = 301, .height = 211, .h = f, .v = f, .restart_interval = restart_interval});
      for (const int shrink : {1, 2, 4, 8}) {
        check_good(data, {{0, 0, 256, 256}, shrink});
        for (uint32_t i = 0; i < 12; ++i) {
          const auto any = [&](uint32_t k) { return int(noise(4 * i + k) % 257); };
          const Request request{{any(0) % 256, any(1) % 256, any(2), any(3)}, shrink};
          check_good(data, request);
        }
      }
    }
  }
}

void test_what_is_left_to_libjpeg() {
  cpu::JpegDecoder ours;
  for (const Encoding& as : {Encoding{.width = 200, .height = 200, .progressive = true},
                             Encoding{.width = 200, .height = 200, .arithmetic = true}}) {
    const std::vector<uint8_t> data = encode(as);
    for (int i = 0; i < 2; ++i) CHECK(same(ours, data) && ours.huffman() == cpu::Huffman::Libjpeg);
  }
  // Tiny, with tables of its own.
  CHECK(same(ours, encode({.optimize = true})) && ours.huffman() == cpu::Huffman::Libjpeg);
}

// Of the entropy-coded data.
size_t start_of_scan(const std::vector<uint8_t>& data) {
  for (size_t i = 0;; ++i) {
    if (data[i] == 0xFF && data[i + 1] == 0xDA) return i + 2 + size_t(data[i + 2]) * 256 + data[i + 3];
  }
}

void test_data_that_ends_otherwise() {
  for (const int restart_interval : {0, 4}) {
    const std::vector<uint8_t> good =
        encode({.width = 120, .height = 100, .quality = 95, .restart_interval = restart_interval});
    cpu::JpegDecoder ours;
    make_ready(ours, good);
    // Padding behind the end, and what is no padding; neither matters, and the latter hides the end from a look at the tail.
    for (const char* tail : {"\n\n", "some other data", "\xFF", "\xFF\xD9", "\xFF\xD0"}) {
      std::vector<uint8_t> data = good;
      data.insert(data.end(), tail, tail + std::strlen(tail));
      CHECK(same(ours, data) && ours.huffman() == cpu::Huffman::Ours);
    }
    // No end marker: whether libjpeg, which reads ahead, has seen the data's end is its own affair.
    std::vector<uint8_t> data(good.begin(), good.end() - 2);
    for (int i = 0; i < 24; ++i, data.push_back(0)) {
      CHECK(same(ours, data) && ours.huffman() == cpu::Huffman::Libjpeg);
    }
    // Cut within the last MCU, with the end marker kept: damage that leaves the end in place.
    data = good;
    data.erase(data.end() - 4, data.end() - 2);
    CHECK(same(ours, data) && decode(ours, data, kWhole).error.empty());
    CHECK(ours.huffman() == cpu::Huffman::Libjpeg);
  }
}

void test_restart_markers_that_are_wrong() {
  const std::vector<uint8_t> good = encode({.width = 160, .height = 96, .quality = 95, .restart_interval = 3});
  cpu::JpegDecoder ours;
  make_ready(ours, good);
  int seen = 0;
  for (size_t i = start_of_scan(good); i + 1 < good.size(); ++i) {
    if (good[i] != 0xFF || (good[i + 1] & 0xF8) != 0xD0) continue;
    ++seen;
    for (int change = 0; change < 8; ++change) {
      std::vector<uint8_t> data = good;
      const auto at = data.begin() + ptrdiff_t(i);
      switch (change) {
        case 0: at[1] = uint8_t(0xD0 + ((at[1] + 1) & 7)); break;  // another one
        case 1: at[1] = uint8_t(0xD0 + ((at[1] + 7) & 7)); break;
        case 2: at[1] = 0; break;
        case 3: at[1] = 0xD9; break;
        case 4: data.erase(at, at + 2); break;
        case 5: data.insert(at, uint8_t(0xFF)); break;  // fill bytes are allowed
        case 6: data.insert(at, uint8_t(0x12)); break;
        case 7: data.insert(at + 2, {0xFF, uint8_t(at[1])}); break;
      }
      check_damaged(ours, data);
    }
  }
  CHECK(seen > 10);
}

void test_damaged_files() {
  for (const Encoding& as : {Encoding{.width = 40, .height = 24, .quality = 60},
                             Encoding{.width = 33, .height = 17, .h = 1, .v = 1, .optimize = true},
                             Encoding{.width = 48, .height = 32, .restart_interval = 1},
                             Encoding{.width = 24, .height = 24, .space = JCS_GRAYSCALE, .h = 1, .v = 1, .rough = true},
                             Encoding{.width = 24, .height = 16, .quality = 100, .code_length = 16}}) {
    const std::vector<uint8_t> good = encode(as);
    cpu::JpegDecoder ours;
    make_ready(ours, good);
    for (size_t cut = 0; cut < good.size(); ++cut) {
      check_damaged(ours, std::vector<uint8_t>(good.begin(), good.begin() + ptrdiff_t(cut)));
      // With the end marker where a look at the tail finds it.
      std::vector<uint8_t> data(good.begin(), good.begin() + ptrdiff_t(cut));
      data.insert(data.end(), {0xFF, 0xD9});
      check_damaged(ours, data);
    }
    const size_t scan = start_of_scan(good);
    int irregular = 0;
    for (uint32_t i = 0; i < 3000; ++i) {
      std::vector<uint8_t> data = good;
      const size_t from = i % 4 == 0 ? 2 : scan;  // sometimes the header, tables of codes above all
      for (uint32_t k = 0; k <= noise(7 * i) % 3; ++k) {
        const size_t at = from + noise(7 * i + 2 * k + 1) % (data.size() - from);
        data[at] =
            i % 5 == 0 ? uint8_t(noise(7 * i + 2 * k + 2)) : uint8_t(data[at] ^ 1u << noise(7 * i + 2 * k + 2) % 8);
      }
      CHECK(same(ours, data));
      irregular += ours.huffman() == cpu::Huffman::Libjpeg;
    }
    CHECK(irregular > 300 && irregular < 2950);  // both of them were tested
    make_ready(ours, good);
  }
}

}  // namespace

void test_entropy() {
  test_good_files();
  test_coefficients_of_all_sizes();
  test_windows();
  test_what_is_left_to_libjpeg();
  test_data_that_ends_otherwise();
  test_restart_markers_that_are_wrong();
  test_damaged_files();
}
