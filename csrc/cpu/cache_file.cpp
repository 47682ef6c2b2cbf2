#include "cache_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>

#include "../core/hash.h"
#include "thread_pool.h"

namespace fastssl::cpu {

namespace {

constexpr char kMagic[8] = {'F', 'S', 'S', 'L', 'P', 'I', 'X', '\n'};
constexpr uint32_t kEndian = 0x01020304;
constexpr int64_t kPage = 4096;
constexpr int kOpenAttempts = 200;

// Of the whole file.
enum State : uint32_t { Filling = 0, Finishing = 1, Complete = 2, Abandoned = 3 };
// Of an image.
enum ImageState : uint32_t { Empty = 0, Claimed = 1, Done = 2, Absent = 3, LeftOut = 4 };

// Sides that may be rounded up to a multiple of the shrinking.
constexpr int32_t kMostSide = INT32_MAX - 8;

// Where the pixels begin, behind the header and a table of 40 bytes a sample.
constexpr int64_t kEntry = 40;
constexpr int64_t kMostSamples = int64_t(1) << 56;
int64_t table_end(int64_t samples) { return aligned(kPage + samples * kEntry, kPage); }

// What a file holds as text ends at a zero, or at the end of its field.
template <size_t N>
std::string text_of(const char (&field)[N]) {
  return std::string(field, ::strnlen(field, N));
}

// A number that several processes share.
template <typename T>
std::atomic_ref<T> shared(T& value) {
  static_assert(std::atomic_ref<T>::is_always_lock_free, "processes have no lock in common");
  return std::atomic_ref<T>(value);
}

std::string quoted(const std::string& path) { return "'" + path + "'"; }

std::string reason(int code) { return std::strerror(code); }

// Which run of which machine this is.
std::string boot_id() {
  char text[37] = {};
  const int fd = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  const ssize_t n = ::read(fd, text, sizeof(text) - 1);
  ::close(fd);
  return std::string(text, size_t(std::max<ssize_t>(0, n)));
}

// Reads as much as there is; its bytes, or -1.
int64_t read_at(int fd, void* to, int64_t size, int64_t at) {
  int64_t have = 0;
  while (have < size) {
    const ssize_t n = ::pread(fd, static_cast<uint8_t*>(to) + have, size_t(size - have), at + have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    have += n;
  }
  return have;
}

bool write_at(int fd, const void* from, int64_t size, int64_t at) {
  int64_t done = 0;
  while (done < size) {
    const ssize_t n = ::pwrite(fd, static_cast<const uint8_t*>(from) + done, size_t(size - done), at + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    done += n;
  }
  return true;
}

bool lock(int fd, int how) {
  int result;
  do result = ::flock(fd, how);
  while (result != 0 && errno == EINTR);
  return result == 0;
}

bool is_at(int fd, const std::string& path) {
  struct stat here, there;
  return ::fstat(fd, &here) == 0 && ::stat(path.c_str(), &there) == 0 && here.st_dev == there.st_dev &&
         here.st_ino == there.st_ino;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace

struct FileCache::Header {
  // Written once.
  char magic[8];
  uint32_t version, endian;
  int64_t samples, data_at;
  uint8_t fingerprint[32];
  char rule[kRuleBytes + 1];
  uint64_t hash;  // of all before
  // While it is filled.
  uint32_t state;
  char boot[44];
  int64_t end;  // where the next image goes
  int64_t settled;
  // Once it is complete.
  int64_t size;
  uint64_t table_hash;
  int64_t images, left_out;
  uint64_t complete_hash;  // from `size` to here

  uint64_t hash_now() const { return core::checksum(this, offsetof(Header, hash)); }
  uint64_t complete_hash_now() const {
    return core::checksum(&size, offsetof(Header, complete_hash) - offsetof(Header, size), hash);
  }
};

struct FileCache::Entry {
  int64_t offset;
  uint64_t hash;  // of pixels and label, and of what follows but the state
  int32_t height, width;
  uint16_t channels;
  uint8_t type, shrink;
  uint32_t state;
  uint32_t label, unused;  // bytes of the label, which stands behind the pixels

  ImageView view(const uint8_t* pixels) const {
    ImageView out;
    out.pixels = pixels;
    out.height = height;
    out.width = width;
    out.channels = channels;
    out.type = PixelType(type);
    out.shrink = shrink;
    out.whole();
    out.stride = row_bytes(out);
    return out;
  }
  int64_t pixel_bytes() const { return view(nullptr).stride * view(nullptr).rows; }
  int64_t bytes() const { return pixel_bytes() + label; }
  // Whether it can be what was stored, so that bytes() may be asked for.
  bool sensible() const {
    if (height <= 0 || width <= 0 || channels == 0 || type > 1) return false;
    if (shrink != 1 && shrink != 2 && shrink != 4 && shrink != 8) return false;
    if (height > kMostSide || width > kMostSide) return false;
    return double(height) * width * channels * 2 < double(int64_t(1) << 62);
  }
  // Whether its pixels lie between these two offsets.
  bool inside(int64_t from, int64_t to) const {
    return sensible() && offset >= from && offset <= to && bytes() <= to - offset;
  }
  uint64_t hash_now(const void* pixels, int64_t index) const {
    const int64_t about[] = {index, height, width, channels, type, shrink, label};
    return core::checksum(pixels, size_t(bytes()), core::checksum(about, sizeof(about)));
  }
};

void FileCache::fail(const std::string& file, const std::string& why) const {
  throw CacheError("cache " + quoted(file) + ": " + why);
}

FileCache::FileCache(Setup setup) : setup_(std::move(setup)) {
  static_assert(sizeof(Header) <= size_t(kPage) && std::is_trivially_copyable_v<Header> &&
                sizeof(Entry) == size_t(kEntry));
  for (int attempt = 0; !open_complete() && !open_part(); ++attempt) {
    // Another process is making, completing or removing it at this moment.
    if (attempt == kOpenAttempts)
      fail(setup_.path, "other processes keep replacing it; give each run a path of its own");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  verified_.reset(new std::atomic<uint8_t>[size_t(setup_.samples)]());
}

FileCache::~FileCache() {
  if (const uint8_t* map = map_.load()) ::munmap(const_cast<uint8_t*>(map), map_bytes_);
  if (header_) ::munmap(header_, head_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

// What must hold of any file before anything else in it is believed.
void FileCache::check_same(const Header& header, const std::string& file) const {
  const std::string remedy = "; delete the file, then it is filled anew, or take another path";
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    fail(file, "this is no cache of fastssl; take another path, for it is left as it is");
  if (header.endian != kEndian) fail(file, "it was written on a machine with another order of bytes" + remedy);
  if (header.version != kCacheVersion) {
    fail(file, "it has the form of version " + std::to_string(header.version) + ", this release reads version " +
                   std::to_string(kCacheVersion) + remedy);
  }
  if (header.hash != header.hash_now()) fail(file, "its header is damaged (wrong checksum)" + remedy);
  if (header.samples < 0 || header.samples > kMostSamples || header.data_at != table_end(header.samples))
    fail(file, "its header is damaged (its table has no possible size)" + remedy);
  if (setup_.any) return;
  if (header.samples != setup_.samples) {
    fail(file, "it was made for a source of " + std::to_string(header.samples) + " samples, this one has " +
                   std::to_string(setup_.samples) + remedy);
  }
  if (setup_.rule != text_of(header.rule)) {
    fail(file, "its images were decoded by another rule (\"" + text_of(header.rule) + "\", here \"" + setup_.rule +
                   "\")" + remedy);
  }
  if (std::memcmp(header.fingerprint, setup_.fingerprint.data(), sizeof(header.fingerprint)) != 0) {
    fail(file,
         "it was made from another source, or from files that have changed since (names, sizes, times of change, "
         "contents or targets differ)" +
             remedy);
  }
}

void FileCache::check_complete(const Header& header, int64_t size) const {
  const std::string remedy = "; delete the file, then it is filled anew";
  if (header.state != Complete) fail(setup_.path, "it was not completed, or its header is damaged" + remedy);
  if (header.complete_hash != header.complete_hash_now())
    fail(setup_.path, "its header is damaged (wrong checksum)" + remedy);
  if (size < header.size) {
    fail(setup_.path,
         "it is truncated: " + std::to_string(size) + " of " + std::to_string(header.size) + " bytes" + remedy);
  }
  if (header.size < header.data_at)
    fail(setup_.path, "its header is damaged (it speaks of what lies outside the file)" + remedy);
}

bool FileCache::open_complete() {
  const Descriptor file(::open(setup_.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    if (errno == ENOENT && !setup_.any) return false;
    fail(setup_.path, "cannot open: " + reason(errno));
  }
  struct stat about;
  if (::fstat(file.get(), &about) != 0) fail(setup_.path, "cannot examine: " + reason(errno));
  if (S_ISDIR(about.st_mode)) fail(setup_.path, "it is a folder; give the name of a file, as 'folder/pixels.cache'");
  if (!S_ISREG(about.st_mode)) fail(setup_.path, "it is not a regular file; take another path");
  Header header{};
  const int64_t have = read_at(file.get(), &header, sizeof(header), 0);
  if (have < 0) fail(setup_.path, "cannot read: " + reason(errno));
  if (have >= int64_t(sizeof(kMagic)) && have < int64_t(sizeof(header)) &&
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0) {
    fail(setup_.path, "it is truncated within its header (" + std::to_string(have) +
                          " bytes); delete the file, then it is filled anew");
  }
  check_same(header, setup_.path);
  check_complete(header, about.st_size);
  if (setup_.any) {
    setup_.samples = header.samples;
    setup_.rule = text_of(header.rule);
  }
  map_complete(file.get(), header);
  return true;
}

void FileCache::map_complete(int fd, const Header& header) {
  void* const map = ::mmap(nullptr, size_t(header.size), PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) {
    fail(setup_.path, "cannot map its " + std::to_string(header.size) + " bytes into memory: " + reason(errno));
  }
  const auto* const bytes = static_cast<const uint8_t*>(map);
  const std::string remedy = "; delete the file, then it is filled anew";
  if (core::checksum(bytes + kPage, size_t(header.samples) * sizeof(Entry)) != header.table_hash) {
    ::munmap(map, size_t(header.size));
    fail(setup_.path, "its table of images is damaged (wrong checksum)" + remedy);
  }
  map_bytes_ = size_t(header.size);
  map_.store(bytes, std::memory_order_release);
}

bool FileCache::open_part() {
  Descriptor file(::open(part().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666));
  if (file.get() < 0) {
    const int code = errno;
    if (code == ENOENT) fail(setup_.path, "there is no such folder; make it first");
    if (code == EISDIR) fail(part(), "it is a folder, where the cache is to be filled; take another path");
    fail(setup_.path, "cannot make " + quoted(part()) + ", in which it is filled: " + reason(code) +
                          "; take a folder that can be written to");
  }
  bool alone = lock(file.get(), LOCK_EX | LOCK_NB);
  if (!alone && errno != EWOULDBLOCK)
    fail(part(), "cannot lock: " + reason(errno) + "; take a folder on a disk of this machine");
  if (!alone && !lock(file.get(), LOCK_SH)) fail(part(), "cannot lock: " + reason(errno));
  if (!is_at(file.get(), part())) return false;  // it got its name, or was removed, before we had the lock
  struct stat about;
  if (::fstat(file.get(), &about) != 0) fail(part(), "cannot examine: " + reason(errno));
  if (!S_ISREG(about.st_mode)) fail(part(), "it is not a regular file; take another path");
  struct stat other;
  if (::stat(setup_.path.c_str(), &other) == 0) {  // completed since we looked
    if (alone && about.st_size == 0) ::unlink(part().c_str());
    return false;
  }
  Header header{};
  const int64_t have = read_at(file.get(), &header, sizeof(header), 0);
  if (have < 0) fail(part(), "cannot read: " + reason(errno));
  const Header zero{};
  if (std::memcmp(&header, &zero, sizeof(header)) == 0) {
    // New, or its maker ended before it wrote the header.
    if (!alone) return false;
    make_part(file.get());
  } else {
    check_same(header, part());
    if (about.st_size < header.data_at) fail(part(), "it is truncated within its table; delete the file");
  }
  head_bytes_ = size_t(table_end(setup_.samples));
  if (!alone && boot_id() != text_of(header.boot)) return true;  // filled on another machine: idle()
  void* const map = ::mmap(nullptr, head_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (map == MAP_FAILED) fail(part(), "cannot map: " + reason(errno));
  header_ = static_cast<Header*>(map);
  entries_ = reinterpret_cast<Entry*>(static_cast<uint8_t*>(map) + kPage);
  fd_ = file.take();
  if (alone) {
    recover();
    if (state() == Complete) {  // and its maker ended before it gave it the name
      publish(fd_);
      ::munmap(std::exchange(header_, nullptr), head_bytes_);
      ::close(std::exchange(fd_, -1));
      return false;
    }
    lock(fd_, LOCK_SH);
  }
  return true;
}

// The space of the header and the table is taken at once: what is written to mapped memory later cannot fail.
void FileCache::make_part(int fd) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kCacheVersion;
  header.endian = kEndian;
  header.samples = setup_.samples;
  header.data_at = table_end(setup_.samples);
  std::memcpy(header.fingerprint, setup_.fingerprint.data(),
              std::min(setup_.fingerprint.size(), sizeof(header.fingerprint)));
  std::memcpy(header.rule, setup_.rule.data(), std::min(setup_.rule.size(), kRuleBytes));
  header.hash = header.hash_now();
  header.end = header.data_at;
  int code = ::ftruncate(fd, 0) == 0 ? 0 : errno;
  if (!code) code = ::posix_fallocate(fd, 0, header.data_at);
  if (!code && !write_at(fd, &header, sizeof(header), 0)) code = errno;
  if (code) {
    ::unlink(part().c_str());
    fail(setup_.path, "cannot write the " + std::to_string(header.data_at) + " bytes of its table: " + reason(code) +
                          "; free space, or take another path");
  }
}

// Alone with the part: images that the file does not hold become Empty. Those that this run of the machine stored are in its
// memory, if not on the disk, so that a look at where they lie is enough; of others all pixels are read.
void FileCache::forget_lost(bool read_all) {
  struct stat about;
  if (::fstat(fd_, &about) != 0) fail(part(), "cannot examine: " + reason(errno));
  const auto there = [&](const Entry& e, int64_t index) {
    if (!e.inside(header_->data_at, about.st_size)) return false;
    if (!read_all) return true;
    Scratch<uint8_t> buffer;
    uint8_t* const pixels = buffer.at_least(size_t(e.bytes()));
    return read_at(fd_, pixels, e.bytes(), e.offset) == e.bytes() && e.hash_now(pixels, index) == e.hash;
  };
  const auto threads = int(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
  parallel_for(setup_.samples, read_all ? threads : 1, [&](int64_t i) {
    Entry& e = entries_[i];
    if (e.state == Done && !there(e, i)) e.state = Empty;
  });
}

// Alone with the part: what a process left that was ended in the middle is put right.
void FileCache::recover() {
  const std::string boot = boot_id();
  if (header_->state != Complete || header_->complete_hash != header_->complete_hash_now()) {
    header_->state = Filling;
    forget_lost(boot != text_of(header_->boot));
  }
  int64_t settled = 0, end = header_->data_at;
  for (int64_t i = 0; i < setup_.samples; ++i) {
    Entry& e = entries_[i];
    if (e.state != Done && e.state != Absent)
      e.state = Empty;  // also what was left out: this run may have another limit
    if (e.state == Done) end = std::max(end, e.offset + e.bytes());
    settled += e.state != Empty;
  }
  header_->settled = settled;
  header_->end = std::max(header_->end, aligned(end));
  std::memset(header_->boot, 0, sizeof(header_->boot));
  std::memcpy(header_->boot, boot.data(), std::min(boot.size(), sizeof(header_->boot) - 1));
}

uint32_t FileCache::state() const { return shared(header_->state).load(std::memory_order_acquire); }

// Whether these pixels are what was stored; then `image` is they.
bool FileCache::look_up(const Entry& entry, int64_t index, const uint8_t* pixels, ImageView& image) const {
  std::atomic<uint8_t>& verified = verified_[size_t(index)];
  if (!verified.load(std::memory_order_relaxed)) {
    if (entry.hash_now(pixels, index) != entry.hash) return false;
    verified.store(1, std::memory_order_relaxed);
  }
  image = entry.view(pixels);
  return true;
}

bool FileCache::find(int64_t index, Scratch<uint8_t>& buffer, ImageView& image) {
  const bool known = index >= 0 && index < setup_.samples;
  bool found = false;
  if (known && !complete() && header_ && state() == Complete) {
    const std::lock_guard guard(mutex_);
    try {
      if (!complete() && error_.empty()) {
        struct stat about;
        if (::fstat(fd_, &about) != 0) fail(setup_.path, "cannot examine: " + reason(errno));
        check_complete(*header_, about.st_size);
        map_complete(fd_, *header_);
      }
    } catch (const CacheError& error) {
      error_ = error.what();
    }
  }
  if (const uint8_t* map = known ? map_.load(std::memory_order_acquire) : nullptr) {
    const Entry& entry = reinterpret_cast<const Entry*>(map + kPage)[index];
    if (entry.state == Done) {
      const bool inside = entry.inside(kPage, int64_t(map_bytes_));
      if (inside) {
        // All of it is asked for at once, where by page faults the disk would be asked many times.
        const int64_t begin = entry.offset / kPage * kPage;
        ::madvise(const_cast<uint8_t*>(map + begin), size_t(entry.offset + entry.bytes() - begin), MADV_WILLNEED);
      }
      found = inside && look_up(entry, index, map + entry.offset, image);
      if (!found) {
        const std::lock_guard guard(mutex_);
        if (error_.empty())
          error_ = "cache " + quoted(setup_.path) + ": the pixels of image " + std::to_string(index) +
                   " are damaged (wrong checksum); delete the file, then it is filled anew";
      }
    }
  } else if (known && header_ && (state() == Filling || state() == Finishing)) {
    Entry& place = entries_[index];
    if (shared(place.state).load(std::memory_order_acquire) == Done) {
      const Entry entry = place;
      if (entry.inside(header_->data_at, shared(header_->end).load())) {
        const int64_t bytes = entry.bytes();
        uint8_t* const pixels = buffer.at_least(size_t(bytes) + kSlack);
        found = read_at(fd_, pixels, bytes, entry.offset) == bytes && look_up(entry, index, pixels, image);
      }
      // The table is nobody's to change here: another process may be finishing the file at this moment.
      if (const uint32_t now = state(); !found && now != Abandoned) {
        const std::lock_guard guard(mutex_);
        if (error_.empty()) {
          error_ = "cache " + quoted(now == Complete ? setup_.path : part()) + ": the pixels of image " +
                   std::to_string(index) + " are damaged (wrong checksum); delete the file, then it is filled anew";
        }
      }
    }
  }
  (found ? hits_ : misses_).fetch_add(1, std::memory_order_relaxed);
  return found;
}

std::optional<std::string> FileCache::label(int64_t index) const {
  if (index < 0 || index >= setup_.samples) return {};
  const uint8_t* const map = map_.load(std::memory_order_acquire);
  if (!map && (!header_ || state() == Abandoned)) return {};
  Entry& place = map ? const_cast<Entry*>(reinterpret_cast<const Entry*>(map + kPage))[index] : entries_[index];
  if (shared(place.state).load(std::memory_order_acquire) != Done) return {};
  const Entry entry = place;
  const int64_t end = map ? int64_t(map_bytes_) : shared(header_->end).load();
  if (!entry.inside(kPage, end)) return {};
  ImageView image;
  Scratch<uint8_t> buffer;
  if (map) {
    if (!look_up(entry, index, map + entry.offset, image)) return {};
    return std::string(reinterpret_cast<const char*>(map + entry.offset + entry.pixel_bytes()), entry.label);
  }
  if (!verified_[size_t(index)].load(std::memory_order_relaxed)) {
    uint8_t* const pixels = buffer.at_least(size_t(entry.bytes()));
    if (read_at(fd_, pixels, entry.bytes(), entry.offset) != entry.bytes() || !look_up(entry, index, pixels, image))
      return {};
  }
  std::string out(entry.label, '\0');
  if (read_at(fd_, out.data(), entry.label, entry.offset + entry.pixel_bytes()) != int64_t(entry.label)) return {};
  return out;
}

// Takes `size` bytes at the end of the file, and returns where; -1 where the limit does not allow it.
int64_t FileCache::reserve(int64_t size) {
  auto end = shared(header_->end);
  int64_t at = end.load();
  do {
    if (setup_.limit && at + size > setup_.limit) return -1;
  } while (!end.compare_exchange_weak(at, at + aligned(size)));
  return at;
}

void FileCache::settle(Entry& entry, const Entry& with, uint32_t as) {
  uint32_t empty = Empty;
  // Where another process stored the same image meanwhile, its copy stays, and this one's space lies idle: that is rare.
  if (!shared(entry.state).compare_exchange_strong(empty, Claimed, std::memory_order_acq_rel)) return;
  entry.offset = with.offset;
  entry.hash = with.hash;
  entry.height = with.height;
  entry.width = with.width;
  entry.channels = with.channels;
  entry.type = with.type;
  entry.shrink = with.shrink;
  entry.label = with.label;
  shared(entry.state).store(as, std::memory_order_release);
  shared(header_->settled).fetch_add(1);
}

bool FileCache::wants(int64_t index, int64_t bytes) {
  if (!header_ || complete() || index < 0 || index >= setup_.samples || state() != Filling) return false;
  if (shared(entries_[index].state).load(std::memory_order_acquire) != Empty) return false;
  if (!setup_.limit || shared(header_->end).load() + bytes <= setup_.limit) return true;
  settle(entries_[index], Entry{}, LeftOut);
  return false;
}

void FileCache::keep(int64_t index, const ImageView& image, std::string_view label) {
  if (!header_ || complete() || index < 0 || index >= setup_.samples || state() != Filling) return;
  Entry& entry = entries_[index];
  if (shared(entry.state).load(std::memory_order_acquire) != Empty) return;
  Entry with{};
  with.height = image.height;
  with.width = image.width;
  with.channels = uint16_t(image.channels);
  with.type = uint8_t(image.type);
  with.shrink = uint8_t(image.shrink);
  with.label = uint32_t(label.size());
  const int64_t row = row_bytes(image), bytes = with.bytes();
  if (!with.sensible()) return absent(index);
  const int64_t at = reserve(bytes);
  if (at < 0) return settle(entry, Entry{}, LeftOut);
  try {
    Scratch<uint8_t> packed;
    const auto* pixels = static_cast<const uint8_t*>(image.pixels);
    if (image.stride != row || !label.empty()) {
      uint8_t* const to = packed.at_least(size_t(bytes));
      for (int y = 0; y < image.rows; ++y) std::memcpy(to + y * row, pixels + y * image.stride, size_t(row));
      std::copy(label.begin(), label.end(), to + row * image.rows);
      pixels = to;
    }
    with.offset = at;
    with.hash = with.hash_now(pixels, index);
    if (!write(pixels, bytes, at)) return;
  } catch (const std::bad_alloc&) {
    return;  // another epoch may have more memory
  }
  settle(entry, with, Done);
}

void FileCache::absent(int64_t index) {
  if (!header_ || complete() || index < 0 || index >= setup_.samples || state() != Filling) return;
  settle(entries_[index], Entry{}, Absent);
}

bool FileCache::write(const void* data, int64_t size, int64_t at) {
  if (write_at(fd_, data, size, at)) return true;
  give_up(errno, size);
  return false;
}

// No more can be written: the part is removed, so that its space comes back, and everybody who fills it stops.
void FileCache::give_up(int code, int64_t size) {
  uint32_t was = state();
  while (was != Abandoned && !shared(header_->state).compare_exchange_weak(was, Abandoned)) {
  }
  const int64_t settled = std::max<int64_t>(1, shared(header_->settled).load());
  const int64_t taken = shared(header_->end).load() - header_->data_at;
  if (was != Abandoned) {
    if (is_at(fd_, part())) ::unlink(part().c_str());
    (void)!::ftruncate(fd_, header_->data_at);  // others map what is before
  }
  const std::lock_guard guard(mutex_);
  if (error_.empty()) {
    const double all = double(taken) / double(settled) * double(setup_.samples);
    error_ = "cache " + quoted(setup_.path) + ": cannot write another " + std::to_string(size) +
             " bytes: " + reason(code) + "; " + std::to_string(settled) + " of " + std::to_string(setup_.samples) +
             " images took " + std::to_string(taken) + " bytes, so all need about " + std::to_string(int64_t(all)) +
             ". What was written is removed. Free space, take a path on another disk, or leave the cache out";
  }
}

std::string FileCache::error() {
  const std::lock_guard guard(mutex_);
  if (error_.empty() && header_ && state() == Abandoned) {
    error_ = "cache " + quoted(setup_.path) +
             ": another process that filled it could not write (its error says why), and has removed it";
  }
  return error_;
}

bool FileCache::completed() const { return complete() || (header_ && state() == Complete); }

bool FileCache::ready() const {
  if (!header_ || complete() || state() != Filling || shared(header_->settled).load() < setup_.samples) return false;
  const std::lock_guard guard(mutex_);
  return error_.empty();  // what is damaged stays without the name
}

void FileCache::finish() {
  uint32_t filling = Filling;
  if (!ready() || !shared(header_->state).compare_exchange_strong(filling, Finishing)) return;
  const auto check = [&](bool good, int64_t size) {
    if (good) return;
    give_up(errno, size);
    throw CacheError(error());
  };
  Header& h = *header_;
  h.size = shared(h.end).load() + int64_t(kSlack);
  struct stat about;
  check(::fstat(fd_, &about) == 0, 0);
  if (about.st_size < h.size) check(::ftruncate(fd_, h.size) == 0, h.size - about.st_size);
  h.table_hash = core::checksum(entries_, size_t(setup_.samples) * sizeof(Entry));
  h.images = h.left_out = 0;
  for (int64_t i = 0; i < setup_.samples; ++i) {
    h.images += entries_[i].state == Done;
    h.left_out += entries_[i].state == LeftOut;
  }
  h.complete_hash = h.complete_hash_now();
  // First all that it says, then that it is complete, then its name.
  check(::msync(header_, head_bytes_, MS_SYNC) == 0 && ::fsync(fd_) == 0, h.size);
  shared(h.state).store(Complete, std::memory_order_release);
  check(::msync(header_, head_bytes_, MS_SYNC) == 0 && ::fsync(fd_) == 0, h.size);
  publish(fd_);
}

// Gives the complete part its name.
void FileCache::publish(int fd) {
  const bool there = is_at(fd, part());
  if (!there || ::rename(part().c_str(), setup_.path.c_str()) != 0) {
    if (!there || errno == ENOENT) fail(part(), "it was removed while it was filled; what was stored is lost");
    fail(setup_.path, "cannot rename " + quoted(part()) + ": " + reason(errno));
  }
  const size_t slash = setup_.path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : setup_.path.substr(0, slash + 1);
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());  // else the name may be lost with the power, but no more
}

Cache::Counts FileCache::counts() const {
  Counts out{0, 0, hits_.load(), misses_.load(), 0};
  const uint8_t* const map = map_.load(std::memory_order_acquire);
  if (map) {
    out.images = reinterpret_cast<const Header*>(map)->images;
    out.left_out = reinterpret_cast<const Header*>(map)->left_out;
    out.bytes = int64_t(map_bytes_);
  } else if (header_) {
    for (int64_t i = 0; i < setup_.samples; ++i) {
      const uint32_t state = shared(entries_[i].state).load();
      out.images += state == Done;
      out.left_out += state == LeftOut;
    }
    out.bytes = state() == Complete ? header_->size : shared(header_->end).load();
  }
  return out;
}

std::vector<int64_t> FileCache::damaged(int threads) const {
  std::vector<int64_t> out;
  std::mutex mutex;
  const uint8_t* const map = map_.load();
  if (!map) return out;
  const auto* entries = reinterpret_cast<const Entry*>(map + kPage);
  parallel_for(setup_.samples, threads, [&](int64_t i) {
    const Entry& e = entries[i];
    if (e.state != Done) return;
    if (e.inside(kPage, int64_t(map_bytes_)) && e.hash_now(map + e.offset, i) == e.hash) return;
    const std::lock_guard guard(mutex);
    out.push_back(i);
  });
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace fastssl::cpu
