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

namespace fastssl::cpu {

// Images of more pixels are refused, as Pillow refuses them: so small a file of so large an image is an attack or a mistake.
constexpr int64_t kMaxPixels = 2 * int64_t(89478485);

struct JpegDecoder::State {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool truncated;
  uint8_t* line;  // one row of CMYK
};

namespace {

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

}  // namespace

bool is_jpeg(const uint8_t* data, size_t size) {
  return size >= 3 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

JpegDecoder::JpegDecoder() : state_(static_cast<State*>(std::calloc(1, sizeof(State)))) {
  if (!state_) throw std::bad_alloc();
  state_->info.err = jpeg_std_error(&state_->errors);
  state_->errors.error_exit = [](j_common_ptr info) {
    State* state = state_of<State>(info);
    info->err->format_message(info, state->message);
    std::longjmp(state->escape, 1);
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
}

JpegDecoder::~JpegDecoder() {
  jpeg_destroy_decompress(&state_->info);
  std::free(state_->line);
  std::free(state_);
}

ImageSize JpegDecoder::open(const uint8_t* data, size_t size) {
  State* const s = state_;
  s->truncated = false;
  s->errors.num_warnings = 0;
  jpeg_abort_decompress(&s->info);
  if (setjmp(s->escape)) throw DecodeError(std::string("not a readable JPEG: ") + s->message);
  jpeg_mem_src(&s->info, const_cast<uint8_t*>(data), static_cast<unsigned long>(size));
  jpeg_read_header(&s->info, TRUE);
  if (s->truncated) throw DecodeError("the JPEG ends within its header (truncated)");
  if (int64_t(s->info.image_width) * s->info.image_height > kMaxPixels) {
    throw DecodeError("the JPEG has " + std::to_string(s->info.image_width) + " x " +
                      std::to_string(s->info.image_height) + " pixels, more than " + std::to_string(kMaxPixels) +
                      "; scale it down first");
  }
  return {int(s->info.image_height), int(s->info.image_width)};
}

void JpegDecoder::decode(uint8_t* pixels, int64_t stride) {
  State* const s = state_;
  if (setjmp(s->escape)) throw DecodeError(std::string("damaged JPEG: ") + s->message);
  const bool cmyk = s->info.jpeg_color_space == JCS_CMYK || s->info.jpeg_color_space == JCS_YCCK;
  s->info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  s->info.dct_method = JDCT_ISLOW;
  s->info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&s->info);
  if (cmyk) {
    std::free(s->line);
    s->line = static_cast<uint8_t*>(std::malloc(size_t(s->info.output_width) * 4));
    if (!s->line) throw std::bad_alloc();
  }
  while (s->info.output_scanline < s->info.output_height) {
    const int64_t y = s->info.output_scanline;
    if (cmyk) {
      jpeg_read_scanlines(&s->info, &s->line, 1);
      cmyk_to_rgb(s->line, int(s->info.output_width), pixels + y * stride);
    } else {
      constexpr int kRows = 16;
      JSAMPROW rows[kRows];
      const int n = s->info.output_height - y < kRows ? int(s->info.output_height - y) : kRows;
      for (int i = 0; i < n; ++i) rows[i] = pixels + (y + i) * stride;
      jpeg_read_scanlines(&s->info, rows, JDIMENSION(n));
    }
    if (s->truncated) break;
  }
  if (s->truncated) {
    jpeg_abort_decompress(&s->info);
    throw DecodeError("the JPEG ends early (truncated)");
  }
  jpeg_finish_decompress(&s->info);
  // jpeg_finish_decompress reads on to the end marker; without one, only the marker is missing and all pixels are there.
}

}  // namespace fastssl::cpu
