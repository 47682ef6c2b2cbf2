#include "plain_jpeg.h"

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
  bool ids_123 = false, ids_rgb = false;
  bool jfif = false, adobe = false, tables = false, codes = false, restarts = false;
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
  }
  headers.components = components;
  return true;
}

bool read_scan(const Segment& segment, const Headers& headers) {
  const size_t components = size_t(headers.components);
  if (!components || !headers.tables || !headers.codes || segment.size != 4 + 2 * components) return false;
  const uint8_t* const spectrum = segment.data + 1 + 2 * components;
  return segment.data[0] == components && spectrum[0] == 0 && spectrum[1] == 63 && spectrum[2] == 0;
}

bool read_tables(const Segment& segment) {
  for (size_t at = 0; at < segment.size; at += 65) {
    if (segment.data[at] >> 4 || at + 65 > segment.size) return false;  // 16 bits; cut off
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

// Whether the coded data runs from here to the end of the image.
bool scan_ends(const uint8_t* at, const uint8_t* end, bool restarts) {
  while (at < end) {
    at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, size_t(end - at)));
    if (!at || end - at < 2) return false;
    const uint8_t next = at[1];
    if (next == kEoi) return true;
    if (next != 0 && !(restarts && next >= kRst0 && next <= kRst7)) return false;
    at += 2;
  }
  return false;
}

}  // namespace

bool is_plain_jpeg(const uint8_t* data, size_t size) {
  if (size < 4 || data[0] != 0xFF || data[1] != kSoi) return false;
  const uint8_t *at = data + 2, *const end = data + size;
  Headers headers;
  for (;;) {
    if (end - at < 4 || at[0] != 0xFF) return false;
    if (at[1] == 0xFF) {  // a fill byte
      ++at;
      continue;
    }
    const uint8_t marker = at[1];
    const size_t length = size_t(at[2]) << 8 | at[3];
    if (length < 2 || size_t(end - at) - 2 < length) return false;
    const Segment segment{at + 4, length - 2};
    at += 2 + length;
    switch (marker) {
      case kSof0:
        if (!read_frame(segment, headers)) return false;
        break;
      case kDht: headers.codes = true; break;
      case kDqt:
        if (!read_tables(segment)) return false;
        headers.tables = true;
        break;
      case kDri:
        if (segment.size != 2) return false;
        headers.restarts = segment.data[0] || segment.data[1];
        break;
      case kSos: return read_scan(segment, headers) && is_ycc(headers) && scan_ends(at, end, headers.restarts);
      default:
        // As long as libjpeg wants them to be, to take them for what they say.
        if (marker == kApp0 && segment.size >= 14 && !std::memcmp(segment.data, "JFIF", 5)) headers.jfif = true;
        if (marker == kApp14 && segment.size >= 12 && !std::memcmp(segment.data, "Adobe", 5)) {
          headers.adobe = true;
          headers.adobe_transform = segment.data[11];
        }
        if ((marker < kApp0 || marker > kApp15) && marker != kCom) return false;
    }
  }
}

}  // namespace fastssl::cpu
