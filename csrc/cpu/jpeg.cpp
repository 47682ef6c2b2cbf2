#include "jpeg.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

// After <cstdio>, which it needs.
#include <jerror.h>
#include <jpeglib.h>

#include "entropy.h"

#if defined(LIBJPEG_TURBO_VERSION_NUMBER)
#if LIBJPEG_TURBO_VERSION_NUMBER >= 1005000 && LIBJPEG_TURBO_VERSION_NUMBER < 3003000
#define FASTSSL_OWN_HUFFMAN
// As in the library's jpegint.h, which is seldom installed. What follows is not the same in all versions, nor needed here.
// A newer version is to be looked at first; built with its headers the tests fail, for they miss our own decoder. A build with
// older headers does not notice a newer libjpeg.so.62: no call of libjpeg's tells the version, and jpeg_create_decompress compares
// only what all of 62 have in common, JPEG_LIB_VERSION and the size of the public struct. Rebuild where the library changes.
struct jpeg_entropy_decoder {
  void (*start_pass)(j_decompress_ptr info);
  boolean (*decode_mcu)(j_decompress_ptr info, JBLOCKROW* blocks);
};
#endif
#endif

namespace fastssl::cpu {

// Images of more pixels are refused, as Pillow refuses them: so small a file of so large an image is an attack or a mistake.
constexpr int64_t kMaxPixels = 2 * int64_t(89478485);

struct JpegDecoder::State {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool truncated;
  bool ends;  // the data ends as a JPEG does
  Area area;  // what read() writes, of the image that libjpeg puts out
  uint8_t* line;  // one row, of what libjpeg puts out
  EntropyDecoder* entropy;  // null: never to be used
  Huffman huffman;          // what decodes this image
  // What was asked for.
  const uint8_t* data;
  size_t size;
  Area window;
  int shrink, channels;
};

namespace {

// How a function of libjpeg ends early.
enum Escape { kError = 1, kIrregular = 2 };

// The error manager is found through info->err, whose enclosing State is found through client_data.
template <typename State>
State* state_of(j_common_ptr info) {
  return static_cast<State*>(info->client_data);
}

// CMYK as Adobe writes it, inverted. Files that do not say who wrote them are taken for such, too, as Pillow takes them.
void cmyk_to_rgb(const uint8_t* from, int n, uint8_t* to) {
  for (int i = 0; i < n; ++i, from += 4, to += 3) {
    const int k = from[3];
    for (int c = 0; c < 3; ++c) {
      const int t = (255 - from[c]) * k + 128;
      to[c] = uint8_t(k - ((t + (t >> 8)) >> 8));
    }
  }
}

// Whether the end-of-image marker is where it belongs: last, but for some padding.
bool has_end(const uint8_t* data, size_t size) {
  constexpr size_t kPadding = 4096;
  size_t end = size;
  while (end > 2 && size - end < kPadding) {
    const uint8_t last = data[end - 1];
    if (last == 0xD9 && data[end - 2] == 0xFF) return true;
    if (last != 0 && last != '\n' && last != '\r' && last != ' ' && last != 0xFF) return false;
    --end;
  }
  return false;
}

// Whether scans are missing that would refine the first coefficients: libjpeg then smooths over the blocks around, and the
// pixels of a part would depend on where it ends.
bool is_incomplete(const jpeg_decompress_struct& info) {
  if (!info.coef_bits) return false;
  for (int c = 0; c < info.num_components; ++c) {
    for (int i = 0; i < DCTSIZE2; ++i) {
      if (info.coef_bits[c][i] != 0) return true;
    }
  }
  return false;
}

}  // namespace

bool is_jpeg(const uint8_t* data, size_t size) {
  return size >= 3 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

JpegDecoder::JpegDecoder([[maybe_unused]] Huffman huffman)
    : state_(static_cast<State*>(std::calloc(1, sizeof(State)))) {
  if (!state_) throw std::bad_alloc();
  state_->info.err = jpeg_std_error(&state_->errors);
  state_->errors.error_exit = [](j_common_ptr info) {
    State* state = state_of<State>(info);
    info->err->format_message(info, state->message);
    std::longjmp(state->escape, kError);
  };
  state_->errors.emit_message = [](j_common_ptr info, int level) {
    if (level < 0) {
      ++info->err->num_warnings;
      if (info->err->msg_code == JWRN_JPEG_EOF) state_of<State>(info)->truncated = true;
    }
  };
  state_->errors.output_message = [](j_common_ptr) {};
  state_->info.client_data = state_;
  if (setjmp(state_->escape)) {
    std::free(state_);
    throw std::bad_alloc();
  }
  jpeg_create_decompress(&state_->info);
  state_->info.client_data = state_;
#if defined(FASTSSL_OWN_HUFFMAN)
  if (huffman == Huffman::Ours) {
    state_->entropy = new (std::nothrow) EntropyDecoder;
    if (!state_->entropy) {
      jpeg_destroy_decompress(&state_->info);
      std::free(state_);
      throw std::bad_alloc();
    }
  }
#endif
}

JpegDecoder::~JpegDecoder() {
  jpeg_destroy_decompress(&state_->info);
  delete state_->entropy;
  std::free(state_->line);
  std::free(state_);
}

ImageSize JpegDecoder::open(const uint8_t* data, size_t size) {
  State* const s = state_;
  s->data = data;
  s->size = size;
  s->truncated = false;
  s->ends = has_end(data, size);
  s->errors.num_warnings = 0;
  if (setjmp(s->escape)) throw DecodeError(std::string("not a readable JPEG: ") + s->message);
  // Made anew: libjpeg keeps an image's tables for those after it, so that one which lacks its own would be decoded with
  // whatever this thread has seen before. It costs some microseconds.
  jpeg_destroy_decompress(&s->info);
  jpeg_create_decompress(&s->info);
  s->info.client_data = s;
  jpeg_mem_src(&s->info, const_cast<uint8_t*>(data), static_cast<unsigned long>(size));
  jpeg_read_header(&s->info, TRUE);
  if (s->truncated) throw DecodeError("the JPEG ends within its header (truncated)");
  if (int64_t(s->info.image_width) * s->info.image_height > kMaxPixels) {
    throw DecodeError("the JPEG has " + std::to_string(s->info.image_width) + " x " +
                      std::to_string(s->info.image_height) + " pixels, more than " + std::to_string(kMaxPixels) +
                      "; scale it down first");
  }
  const int stored = s->info.num_components;
  return {int(s->info.image_height), int(s->info.image_width), stored == 1 || stored == 4 ? stored : 3};
}

Area JpegDecoder::begin(const Area& window, int shrink, int channels) {
  state_->window = window;
  state_->shrink = shrink;
  state_->channels = channels;
  return prepare(window, shrink, channels, state_->entropy ? Huffman::Ours : Huffman::Libjpeg);
}

Area JpegDecoder::prepare(const Area& window, int shrink, int channels, [[maybe_unused]] Huffman huffman) {
  State* const s = state_;
  jpeg_decompress_struct& info = s->info;
  if (setjmp(s->escape)) throw DecodeError(std::string("damaged JPEG: ") + s->message);
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = cmyk ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  info.scale_num = 1;
  info.scale_denom = unsigned(shrink);
  jpeg_start_decompress(&info);
  s->area = {0, 0, int(info.output_height), int(info.output_width)};
  std::free(s->line);
  s->line = static_cast<uint8_t*>(std::malloc(size_t(info.output_width) * 4));
  if (!s->line) throw std::bad_alloc();
  s->huffman = Huffman::Libjpeg;
  // libjpeg skips rows by decoding them to nowhere, which its arithmetic decoder cannot.
  if (info.arith_code || is_incomplete(info)) return s->area;

  // Chroma is blended with that of the next column, so one unit more on either side makes the window's own columns right.
#if JPEG_LIB_VERSION >= 70
  const int block = info.min_DCT_h_scaled_size;
#else
  const int block = info.min_DCT_scaled_size;
#endif
  const int unit = block * (info.num_components == 1 ? 1 : info.max_h_samp_factor);
  const int left = window.left > unit ? window.left - unit : 0;
  const int right = window.left + window.columns + unit;
  if (left >= unit || right < int(info.output_width)) {
    JDIMENSION x = JDIMENSION(left);
    JDIMENSION width = JDIMENSION((right < int(info.output_width) ? right : int(info.output_width)) - left);
    jpeg_crop_scanline(&info, &x, &width);
    s->area.left = int(x);
    s->area.columns = int(width);
  }
  s->area.top = window.top;
  s->area.rows = window.rows;
#if defined(FASTSSL_OWN_HUFFMAN)
  const int end_column = (s->area.left + s->area.columns + unit - 1) / unit;
  if (huffman == Huffman::Ours && s->entropy->start(info, s->area.left / unit, end_column)) {
    s->huffman = Huffman::Ours;
    info.entropy->decode_mcu = [](j_decompress_ptr decompress, JBLOCKROW* blocks) -> boolean {
      State* const state = state_of<State>(reinterpret_cast<j_common_ptr>(decompress));
      if (!state->entropy->decode(blocks)) std::longjmp(state->escape, kIrregular);
      return TRUE;
    };
  }
#endif
  return s->area;
}

void JpegDecoder::read(uint8_t* pixels, int64_t stride) {
  if (read_rows(pixels, stride)) return;
  // What libjpeg makes of irregular data is its own affair: from the start, by its own decoder.
  State* const s = state_;
  open(s->data, s->size);
  prepare(s->window, s->shrink, s->channels, Huffman::Libjpeg);
  read_rows(pixels, stride);
}

Huffman JpegDecoder::huffman() const { return state_->huffman; }

// False where the data is irregular, which only our own decoder of Huffman codes says.
bool JpegDecoder::read_rows(uint8_t* pixels, int64_t stride) {
  State* const s = state_;
  jpeg_decompress_struct& info = s->info;
  switch (setjmp(s->escape)) {
    case 0: break;
    case kIrregular: return false;
    default: throw DecodeError(std::string("damaged JPEG: ") + s->message);
  }
  const int top = s->area.top, end = top + s->area.rows, height = int(info.output_height);
  if (top > 0) jpeg_skip_scanlines(&info, JDIMENSION(top));
  while (int(info.output_scanline) < end && !s->truncated) {
    const int y = int(info.output_scanline);
    uint8_t* const to = pixels + (y - top) * stride;
    if (info.out_color_space == JCS_CMYK) {
      jpeg_read_scanlines(&info, &s->line, 1);
      cmyk_to_rgb(s->line, s->area.columns, to);
    } else {
      constexpr int kRows = 16;
      JSAMPROW rows[kRows];
      const int n = end - y < kRows ? end - y : kRows;
      for (int i = 0; i < n; ++i) rows[i] = to + i * stride;
      jpeg_read_scanlines(&info, rows, JDIMENSION(n));
    }
  }
  if (end < height && !s->ends && !s->truncated) {
    // To the last row and not beyond it: a skip to the very end would not read.
    if (end + 1 < height) jpeg_skip_scanlines(&info, JDIMENSION(height - 1 - end));
    jpeg_read_scanlines(&info, &s->line, 1);
  }
  // Whether the end marker follows is no matter: all pixels are there.
  jpeg_abort_decompress(&info);
  if (s->truncated) throw DecodeError("the JPEG ends early (truncated)");
  return true;
}

void JpegDecoder::decode(uint8_t* pixels, int64_t stride, int channels) {
  begin({0, 0, int(state_->info.image_height), int(state_->info.image_width)}, 1, channels);
  read(pixels, stride);
}

}  // namespace fastssl::cpu
