// Decoded images in one file, filled and read by any number of processes of a machine at once.
//
// Note [A cache in a file]
// The file that users name exists only when it is complete; from then on nobody writes into it, and readers map it. Until
// then there is a file of the same form beside it, `<path>.part`, which is renamed when every image is settled: stored, known
// to be none, or left out because it does not fit into the limit. Why it is so, and not one writer, nor a part for each process:
//
// * Ranks of distributed training see each a part of an epoch. With one writer the others would decode what it lacks, for
//   as many epochs as there are ranks and more; with parts of their own, someone must copy them together, and meanwhile no
//   rank has what another decoded. So all write into one file, and an image is there for all as soon as one has stored it.
// * Nothing needs a lock that a killed process could leave behind. Space is reserved by an atomic addition in the mapped
//   header; pixels are written there by pwrite, so that a full disk is an error and no signal; then the image's entry goes by
//   compare-and-swap from Empty to Claimed, is filled in, and becomes Done, with release order. A process that is killed leaves
//   unused space, or at worst (between two stores) an entry that stays Claimed, which costs that image and nobody else.
// * flock says whether somebody is there: everyone who has the part open holds it shared. Who finds himself alone (he can take
//   it exclusively) puts right what a killed process left: claims become Empty again, settled images are counted anew. So does what was left
//   out, for his limit may be larger. The
//   kernel gives locks back, however a process ends. The part of another machine that is at work there (its boot id says so;
//   the folder is then on the network, where memory is not shared) is left alone, and this process decodes without a cache.
// * A first epoch that was broken off keeps all it stored: the next run goes on with the part. Every image has a checksum over
//   its pixels and its entry, verified when a process first uses it: what fails is damage, and an error. If the machine itself went
//   down, pages may be missing: who then finds himself alone with the part (its boot id is not this one's) reads all of it, and
//   an image that fails its checksum is decoded and stored again. Where processes were only killed, the pages are still in
//   memory, and a long part need not be read. The complete file was flushed to disk before it got its name.
// * A label that only a fetch tells is stored behind the pixels by whoever fetched the image: others never fetch it.
#pragma once

#include <optional>

#include "cache.h"

namespace fastssl::cpu {

constexpr uint32_t kCacheVersion = 2;

class FileCache : public Cache {
 public:
  struct Setup {
    std::string path;
    int64_t samples = 0;
    std::string fingerprint;  // of the source, 32 bytes
    std::string rule;  // how images were decoded, in words; at most kRuleBytes
    int64_t limit = 0;  // bytes of the file; 0: none
    bool any = false;  // of a complete file: whatever its samples, fingerprint and rule are
  };
  static constexpr size_t kRuleBytes = 1023;

  // Opens the file, or the part beside it, which is made if need be. Throws CacheError.
  explicit FileCache(Setup setup);
  ~FileCache() override;

  bool find(int64_t index, Scratch<uint8_t>& buffer, ImageView& image) override;
  bool wants(int64_t index, int64_t bytes) override;
  void keep(int64_t index, const ImageView& image, std::string_view label = {}) override;
  void absent(int64_t index) override;
  std::string error() override;
  Counts counts() const override;

  bool complete() const { return map_.load(std::memory_order_acquire) != nullptr; }
  // The same, also where this process has not mapped it yet.
  bool completed() const;
  // Another machine is filling it: nothing is found and nothing stored.
  bool idle() const { return fd_ < 0 && !complete(); }
  // Whether every image is settled and nobody has begun to finish() yet.
  bool ready() const;
  // Completes the file. Does nothing unless ready(). Throws CacheError.
  void finish();
  // The label that was stored with an image, by whichever process; none where there is no such image, or it is damaged.
  std::optional<std::string> label(int64_t index) const;
  int64_t samples() const { return setup_.samples; }
  const std::string& rule() const { return setup_.rule; }
  // Images of a complete file whose pixels are not what was stored.
  std::vector<int64_t> damaged(int threads) const;

 private:
  struct Header;
  struct Entry;

  bool open_complete();
  bool open_part();
  void make_part(int fd);
  void check_same(const Header& header, const std::string& file) const;
  void check_complete(const Header& header, int64_t size) const;
  void map_complete(int fd, const Header& header);
  void forget_lost(bool read_all);
  void recover();
  void publish(int fd);
  uint32_t state() const;
  void settle(Entry& entry, const Entry& with, uint32_t state);
  int64_t reserve(int64_t size);
  bool write(const void* data, int64_t size, int64_t at);
  void give_up(int code, int64_t size);
  bool look_up(const Entry& entry, int64_t index, const uint8_t* pixels, ImageView& image) const;
  std::string part() const { return setup_.path + ".part"; }
  [[noreturn]] void fail(const std::string& file, const std::string& why) const;

  Setup setup_;
  int fd_ = -1;  // of the part, while it is one
  Header* header_ = nullptr;  // of the part, mapped and shared, and behind it the entries
  Entry* entries_ = nullptr;
  size_t head_bytes_ = 0;
  std::atomic<const uint8_t*> map_{nullptr};  // the complete file
  size_t map_bytes_ = 0;
  std::unique_ptr<std::atomic<uint8_t>[]> verified_;  // one an image
  mutable std::mutex mutex_;  // of the error, and of mapping
  std::string error_;
};

}  // namespace fastssl::cpu
