// JPEG to 8-bit RGB with libjpeg-turbo: the full image, with the accurate DCT and smooth chroma, as Pillow and torchvision decode.
//
// libjpeg reports errors by longjmp. Each call into it is confined to a function that holds no object with a destructor,
// and the decoder itself outlives the jump, so nothing is leaked and no destructor is passed over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace fastssl::cpu {

struct ImageSize {
  int height = 0, width = 0;
};

// What is wrong with the data, in words that can follow a file's name and a colon.
struct DecodeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Whether the data begins as a JPEG does.
bool is_jpeg(const uint8_t* data, size_t size);

class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Reads the header; `data` must live until decode() has returned. Throws DecodeError.
  ImageSize open(const uint8_t* data, size_t size);
  // Writes height x width x 3 bytes, rows `stride` bytes apart. Throws DecodeError; truncated data is an error. After open().
  void decode(uint8_t* pixels, int64_t stride);

 private:
  struct State;
  State* state_;
};

}  // namespace fastssl::cpu
