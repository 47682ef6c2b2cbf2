// JPEG to 8-bit RGB with libjpeg-turbo, with the accurate DCT and smooth chroma, as Pillow and torchvision decode: the whole
// image, or a part of it with the same pixels, or all or a part of a smaller copy that the DCT gives for less than its price.
//
// libjpeg reports errors by longjmp. Each call into it is confined to a function that holds no object with a destructor,
// and the decoder itself outlives the jump, so nothing is leaked and no destructor is passed over.
//
// Huffman codes are decoded by cpu/entropy.h where it can: by libjpeg are those of progressive files and of files with several
// scans, those of tiny files, damaged ones, and all where the headers are of another libjpeg than libjpeg-turbo 1.5 to 3.2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace fastssl::cpu {

struct ImageSize {
  int height = 0, width = 0;
  int channels = 3;  // as stored: 1, 3, or 4 (CMYK)
};

// A part of an image.
struct Area {
  int top = 0, left = 0, rows = 0, columns = 0;
};

// What is wrong with the data, in words that can follow a file's name and a colon.
struct DecodeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Whether the data begins as a JPEG does.
bool is_jpeg(const uint8_t* data, size_t size);

// Whose decoder of Huffman codes.
enum class Huffman { Ours, Libjpeg };

class JpegDecoder {
 public:
  // Libjpeg: never ours, to compare them. The pixels and errors are the same.
  explicit JpegDecoder(Huffman huffman = Huffman::Ours);
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Reads the header; `data` must live until read() has returned. Throws DecodeError.
  ImageSize open(const uint8_t* data, size_t size);

  // After open(): prepares for reading `window`, which lies inside the image shrunk by `shrink` (1, 2, 4 or 8), whose sides are
  // rounded up. Returns the part that read() will write, which holds the window. `channels` is 3, or 1 for an image that
  // has 1. Throws DecodeError.
  Area begin(const Area& window, int shrink, int channels);
  // After begin(): writes its part, rows `stride` bytes apart. Inside the window, the pixels are those of the whole image;
  // beside it, columns at the edges may be off, their chroma not being blended with what lies beyond. Throws DecodeError.
  //
  // Truncated data is an error whatever the window: where the data does not end as a JPEG does, what lies below the window is
  // read to see whether it is there. What is not noticed is damage that leaves the end in place, as in the whole image.
  void read(uint8_t* pixels, int64_t stride);

  // After open(): the whole image, height x width x `channels` bytes.
  void decode(uint8_t* pixels, int64_t stride, int channels = 3);

  // Whose has decoded what read() gave.
  Huffman huffman() const;

 private:
  Area prepare(const Area& window, int shrink, int channels, Huffman huffman);
  bool read_rows(uint8_t* pixels, int64_t stride);

  struct State;
  State* state_;
};

}  // namespace fastssl::cpu
