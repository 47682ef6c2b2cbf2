#include "engine.h"

#include <unistd.h>

#include <chrono>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "../core/draw.h"
#include "file.h"
#include "jpeg.h"

namespace fastssl::cpu {

namespace {

// Beyond this, a thread gives back what one large photograph took.
constexpr size_t kKeptBytes = size_t(64) << 20;

// What a thread keeps from sample to sample.
struct Worker {
  JpegDecoder jpeg;
  Renderer renderer;
  Scratch<uint8_t> file, pixels;
};

// The engine whose task this thread runs.
thread_local const Engine* working_for = nullptr;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

bool Job::wait(int milliseconds) {
  std::unique_lock lock(mutex);
  return done.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return left.load() == 0; });
}

std::vector<Failure> Job::failures() {
  const std::lock_guard lock(mutex);
  return failed;
}

Engine::Engine(int threads, std::vector<core::ViewSpec> views, uint64_t seed, Callbacks callbacks,
               std::shared_ptr<Cache> cache)
    : views_(std::move(views)),
      seed_(seed),
      callbacks_(std::move(callbacks)),
      cache_(std::move(cache)),
      owner_(getpid()),
      pool_(std::make_unique<ThreadPool>(threads)) {}

void Engine::submit(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  if (pool_) pool_->post([this, job] { work(*job); }, pool_->size());
}

bool Engine::close() {
  closed_.store(true);
  if (working_for == this) return false;
  if (getpid() != owner_) {
    // In a forked child the threads do not exist, and the pool's condition variable still waits for them: leave it all be.
    (void)pool_.release();
    return true;
  }
  std::unique_ptr<ThreadPool> pool;
  {
    const std::lock_guard lock(mutex_);
    pool = std::move(pool_);
  }
  return true;  // the threads are joined as `pool` goes, without the lock
}

void Engine::work(Job& job) {
  working_for = this;
  const auto n = int64_t(job.samples.size());
  for (int64_t i; !closed_.load(std::memory_order_relaxed) && (i = job.next.fetch_add(1)) < n;) {
    const Sample& sample = job.samples[size_t(i)];
    std::optional<std::string> reason;
    try {
      if (!process_kept(job, sample)) process(job, sample);
    } catch (const std::bad_alloc&) {
      reason = "not enough memory to decode it";
    } catch (const DecodeError& error) {
      reason = error.what();
      if (cache_) cache_->absent(sample.index);
    } catch (const std::exception& error) {
      reason = error.what();
    }
    if (reason) {
      const std::lock_guard lock(job.mutex);
      job.failed.push_back({sample.position, reason->empty() ? "no reason was given" : std::move(*reason)});
    }
    if (job.left.fetch_sub(1) == 1) {
      const std::lock_guard lock(job.mutex);
      job.done.notify_all();
    }
  }
}

// Makes the views of an image that the cache holds, with neither file nor decoder.
bool Engine::process_kept(Job& job, const Sample& sample) {
  thread_local Scratch<uint8_t> buffer;
  thread_local Renderer renderer;
  if (!cache_) return false;
  const int64_t begin = now();
  ImageView image;
  if (!cache_->find(sample.index, buffer, image)) return false;
  const int64_t found = now();
  core::ViewPlan* plans = job.plans + sample.position * int64_t(views_.size());
  const core::DrawKey key{seed_, uint64_t(sample.index), sample.epoch, 0, sample.repeat};
  core::draw_views(views_.data(), views_.size(), key, image.height, image.width, plans);
  for (size_t v = 0; v < views_.size(); ++v) {
    renderer.render(image, views_[v], plans[v], job.outputs[v], sample.position);
  }
  times_.read += found - begin;
  times_.render += now() - found;
  times_.images += 1;
  if (buffer.bytes() > kKeptBytes) buffer.free();
  return true;
}

void Engine::process(Job& job, const Sample& sample) {
  thread_local Worker worker;
  const int64_t begin = now();
  Fetched fetched;
  if (sample.path.empty()) {
    fetched = callbacks_.fetch(sample.index);
  } else {
    fetched.size = read_file(sample.path, worker.file);
    fetched.bytes = worker.file.at_least(0);
  }
  const int64_t read = now();

  ImageView image = fetched.image;
  const bool jpeg = fetched.bytes && is_jpeg(fetched.bytes, fetched.size);
  if (jpeg) {
    const ImageSize size = worker.jpeg.open(fetched.bytes, fetched.size);
    image.height = size.height;
    image.width = size.width;
    image.stride = int64_t(3) * size.width;
    image.whole();
  } else if (fetched.bytes) {
    // Assigned only afterwards: what is decoded must outlive the call.
    Fetched decoded = callbacks_.decode_other(fetched.bytes, fetched.size);
    fetched = std::move(decoded);
    image = fetched.image;
  }

  // The plan needs no more than the size.
  core::ViewPlan* plans = job.plans + sample.position * int64_t(views_.size());
  const core::DrawKey key{seed_, uint64_t(sample.index), sample.epoch, 0, sample.repeat};
  core::draw_views(views_.data(), views_.size(), key, image.height, image.width, plans);
  if (jpeg) {
    uint8_t* pixels = worker.pixels.at_least(size_t(image.stride) * size_t(image.height));
    worker.jpeg.decode(pixels, image.stride);
    image.pixels = pixels;
  }
  if (cache_) cache_->keep(sample.index, image);
  const int64_t decoded = now();

  for (size_t v = 0; v < views_.size(); ++v) {
    worker.renderer.render(image, views_[v], plans[v], job.outputs[v], sample.position);
  }
  times_.read += read - begin;
  times_.decode += decoded - read;
  times_.render += now() - decoded;
  times_.images += 1;
  if (worker.file.bytes() > kKeptBytes) worker.file.free();
  if (worker.pixels.bytes() > kKeptBytes) worker.pixels.free();
}

}  // namespace fastssl::cpu
