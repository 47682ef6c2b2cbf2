// Whole files into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "memory.h"

namespace fastssl::cpu {

// Reads the file into `buffer` and returns its size. Throws DecodeError where it is missing, unreadable, empty or no file.
size_t read_file(const std::string& path, Scratch<uint8_t>& buffer);

}  // namespace fastssl::cpu
