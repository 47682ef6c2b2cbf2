#include "plain_jpeg.h"

#include <cstdint>
#include <cstring>

namespace fastssl::cpu {
namespace {

enum Marker : uint8_t {
  kSof0 = 0xC0,
  kDht = 0xC4,
  kRst0 = 0xD0,
  kRst7 = 0xD7,
  kSoi = 0xD8,
  kEoi = 0xD9,
  kSos = 0xDA,
  kDqt = 0xDB,
  kDri = 0xDD,
  kApp0 = 0xE0,
  kApp14 = 0xEE,
  kApp15 = 0xEF,
  kCom = 0xFE,
};

// A marker segment behind its length.
struct Segment {
  const uint8_t* data;
  size_t size;
};

// What the headers say.
struct Headers {
  int components = 0;
  uint8_t ids[3] = {}, quantization[3] = {};  // of each component: its name, and its table
  bool ids_123 = false, ids_rgb = false;
  bool jfif = false, adobe = false, restarts = false;
  // Which tables there are: of quantization; of codes of the first coefficients and of the others.
  unsigned tables = 0, codes[2] = {};
  uint8_t adobe_transform = 0;
};

bool read_frame(const Segment& segment, Headers& headers) {
  if (headers.components || segment.size < 6 || segment.data[0] != 8) return false;  // a second frame; not 8 bits
  const int height = segment.data[1] << 8 | segment.data[2], width = segment.data[3] << 8 | segment.data[4];
  const int components = segment.data[5];
  if (!height || !width || (components != 1 && components != 3) || segment.size != 6 + size_t(components) * 3)
    return false;
  headers.ids_123 = headers.ids_rgb = true;
  for (int c = 0; c < components; ++c) {
    const uint8_t* const component = segment.data + 6 + c * 3;
    const int across = component[1] >> 4, down = component[1] & 15;
    // 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1; what gray says of itself is of no consequence
    const bool usual = (across == 1 || across == 2 || (across == 4 && down == 1)) && (down == 1 || down == 2);
    if (components == 3 && (c ? component[1] != 0x11 : !usual)) return false;
    headers.ids_123 = headers.ids_123 && component[0] == c + 1;
    headers.ids_rgb = headers.ids_rgb && component[0] == "RGB"[c];
    headers.ids[c] = component[0];
    headers.quantization[c] = component[2];
  }
  headers.components = components;
  return true;
}

bool has(unsigned tables, int number) { return number < 4 && (tables >> number & 1) != 0; }

bool read_scan(const Segment& segment, const Headers& headers) {
  const size_t components = size_t(headers.components);
  if (!components || segment.size != 4 + 2 * components) return false;
  for (size_t c = 0; c < components; ++c) {
    const uint8_t* const component = segment.data + 1 + 2 * c;
    if (component[0] != headers.ids[c] || !has(headers.tables, headers.quantization[c]) ||
        !has(headers.codes[0], component[1] >> 4) || !has(headers.codes[1], component[1] & 15))
      return false;
  }
  const uint8_t* const spectrum = segment.data + 1 + 2 * components;
  return segment.data[0] == components && spectrum[0] == 0 && spectrum[1] == 63 && spectrum[2] == 0;
}

bool read_tables(const Segment& segment, Headers& headers) {
  for (size_t at = 0; at < segment.size; at += 65) {
    if (segment.data[at] > 3 || at + 65 > segment.size) return false;  // 16 bits, or no such table; cut off
    headers.tables |= 1u << segment.data[at];
  }
  return segment.size > 0;
}

bool read_codes(const Segment& segment, Headers& headers) {
  for (size_t at = 0; at < segment.size;) {
    if (segment.size - at < 17) return false;
    const int kind = segment.data[at] >> 4, number = segment.data[at] & 15;
    if (kind > 1 || number > 1) return false;  // a baseline JPEG has two of each
    size_t codes = 0, room = 1;
    for (int length = 1; length <= 16; ++length) {
      const size_t here = segment.data[at + size_t(length)];
      room = room * 2;
      if (here >= room) return false;  // more codes than there are of this length, of which the one of all ones is none
      room -= here;
      codes += here;
    }
    at += 17;
    if (codes > 256 || segment.size - at < codes) return false;
    at += codes;
    headers.codes[kind] |= 1u << number;
  }
  return segment.size > 0;
}

// Whether all that speaks of colours says YCbCr. Where markers contradict each other libjpeg has its rules, which others need
// not share.
bool is_ycc(const Headers& headers) {
  if (headers.components == 1) return true;
  if (headers.ids_rgb || (headers.adobe && headers.adobe_transform != 1)) return false;
  return headers.jfif || headers.adobe || headers.ids_123;
}

// Where the image ends whose coded data begins here; null where it is not whole.
const uint8_t* end_of_scan(const uint8_t* at, const uint8_t* end, bool restarts) {
  while (at < end) {
    at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, size_t(end - at)));
    if (!at || end - at < 2) return nullptr;
    const uint8_t next = at[1];
    at += 2;
    if (next == kEoi) return at;
    if (next != 0 && !(restarts && next >= kRst0 && next <= kRst7)) return nullptr;
  }
  return nullptr;
}

}  // namespace

size_t plain_jpeg_size(const uint8_t* data, size_t size) {
  if (size < 4 || data[0] != 0xFF || data[1] != kSoi) return 0;
  const uint8_t *at = data + 2, *const end = data + size;
  Headers headers;
  for (;;) {
    if (end - at < 4 || at[0] != 0xFF) return 0;
    if (at[1] == 0xFF) {  // a fill byte
      ++at;
      continue;
    }
    const uint8_t marker = at[1];
    const size_t length = size_t(at[2]) << 8 | at[3];
    if (length < 2 || size_t(end - at) - 2 < length) return 0;
    const Segment segment{at + 4, length - 2};
    at += 2 + length;
    switch (marker) {
      case kSof0:
        if (!read_frame(segment, headers)) return 0;
        break;
      case kDht:
        if (!read_codes(segment, headers)) return 0;
        break;
      case kDqt:
        if (!read_tables(segment, headers)) return 0;
        break;
      case kDri:
        if (segment.size != 2) return 0;
        headers.restarts = segment.data[0] || segment.data[1];
        break;
      case kSos: {
        if (!read_scan(segment, headers) || !is_ycc(headers)) return 0;
        const uint8_t* const last = end_of_scan(at, end, headers.restarts);
        return last ? size_t(last - data) : 0;
      }
      default:
        // As long as libjpeg wants them to be, to take them for what they say.
        if (marker == kApp0 && segment.size >= 14 && !std::memcmp(segment.data, "JFIF", 5)) headers.jfif = true;
        if (marker == kApp14 && segment.size >= 12 && !std::memcmp(segment.data, "Adobe", 5)) {
          headers.adobe = true;
          headers.adobe_transform = segment.data[11];
        }
        if ((marker < kApp0 || marker > kApp15) && marker != kCom) return 0;
    }
  }
}

}  // namespace fastssl::cpu
