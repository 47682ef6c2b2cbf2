#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "jpeg.h"

namespace fastssl::cpu {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd(fd) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int fd;
};

DecodeError system_error(const char* what) { return DecodeError(std::string(what) + ": " + std::strerror(errno)); }

}  // namespace

size_t read_file(const std::string& path, Scratch<uint8_t>& buffer) {
  // Without O_NONBLOCK a pipe would keep us waiting before we can see that it is one; for files it means nothing.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) throw system_error("cannot open");
  struct stat about;
  if (::fstat(file.fd, &about) != 0) throw system_error("cannot examine");
  if (S_ISDIR(about.st_mode)) throw DecodeError("it is a folder, not a file");
  if (!S_ISREG(about.st_mode)) throw DecodeError("it is not a regular file");
  const size_t size = size_t(about.st_size);
  if (size == 0) throw DecodeError("the file is empty (0 bytes)");
  uint8_t* to = buffer.at_least(size);
  size_t have = 0;
  while (have < size) {
    const ssize_t n = ::read(file.fd, to + have, size - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("cannot read");
    if (n == 0) break;  // it became shorter meanwhile; the decoder will say what is missing
    have += size_t(n);
  }
  return have;
}

}  // namespace fastssl::cpu
