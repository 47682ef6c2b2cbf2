#include "engine.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "../core/draw.h"
#include "../core/smallest_crop.h"
#include "file.h"
#include "jpeg.h"
#include "plain_jpeg.h"
#include "window.h"

namespace fastssl::cpu {

// What a thread keeps from sample to sample.
struct Worker {
  JpegDecoder jpeg;
  Renderer renderer;
  Scratch<uint8_t> file, pixels, kept;
};

namespace {

// Beyond this, a thread gives back what one large photograph took.
constexpr size_t kKeptBytes = size_t(64) << 20;

// The engine whose task this thread runs.
thread_local const Engine* working_for = nullptr;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Decodes that part of the JPEG that `worker` has open, into the worker's memory or what is gathered, and says in `image` where
// it lies.
void decode_part(Worker& worker, const Needed& part, ImageView& image, Gather* gather = nullptr) {
  const Area area = worker.jpeg.begin(part.window, part.shrink, image.channels);
  image.stride = int64_t(image.channels) * area.columns;
  const size_t bytes = size_t(image.stride) * size_t(area.rows);
  uint8_t* pixels = gather ? gather->pixels.take(bytes) : worker.pixels.at_least(bytes);
  worker.jpeg.read(pixels, image.stride);
  image.pixels = pixels;
  image.shrink = part.shrink;
  image.top = area.top;
  image.left = area.left;
  image.rows = area.rows;
  image.columns = area.columns;
}

// The part of an image in memory that holds a window of the whole.
ImageView part_of(const ImageView& image, const Area& window) {
  const int top = std::max(window.top / image.shrink - image.top, 0);
  const int bottom = std::min((window.top + window.rows - 1) / image.shrink + 1 - image.top, image.rows);
  const int left = std::max(window.left / image.shrink - image.left, 0);
  const int right = std::min((window.left + window.columns - 1) / image.shrink + 1 - image.left, image.columns);
  ImageView part = image;
  part.pixels =
      static_cast<const uint8_t*>(image.pixels) + top * image.stride + left * image.channels * pixel_size(image.type);
  part.top += top;
  part.left += left;
  part.rows = bottom - top;
  part.columns = right - left;
  return part;
}

// Reads what the views need of an image that lies in memory, from its beginning to its end: so it comes at the speed of
// memory, where the views would wait for it line by line. Measured: 18 % of the time of two views of 224 pixels.
void touch(const ImageView& part) {
  constexpr int64_t kLine = 64, kCached = int64_t(1) << 16;  // less is not worth it
  if (part.rows * row_bytes(part) < kCached) return;
  uint8_t sum = 0;
  for (int i = 0; i < part.rows; ++i) {
    const uint8_t* row = static_cast<const uint8_t*>(part.pixels) + i * part.stride;
    for (int64_t x = 0; x < row_bytes(part); x += kLine) sum = uint8_t(sum + row[x]);
  }
  asm volatile("" : : "r"(sum));  // read it, although nobody asks for the sum
}

// Copies a part of an image to what is gathered.
void gather_part(ImageView part, Gather& gather, int64_t position) {
  const int64_t row = row_bytes(part);
  uint8_t* const to = gather.pixels.take(size_t(row) * size_t(part.rows));
  for (int i = 0; i < part.rows; ++i)
    std::memcpy(to + i * row, static_cast<const uint8_t*>(part.pixels) + i * part.stride, size_t(row));
  part.pixels = to;
  part.stride = row;
  gather.set(position, part);
}

}  // namespace

bool Job::wait(int milliseconds) {
  std::unique_lock lock(mutex);
  done.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return woken || left.load() == 0; });
  return left.load() == 0;
}

void Job::wake() {
  const std::lock_guard lock(mutex);
  woken = true;
  done.notify_all();
}

std::vector<Failure> Job::failures() {
  const std::lock_guard lock(mutex);
  return failed;
}

Engine::Engine(Settings settings, Callbacks callbacks)
    : settings_(std::move(settings)),
      callbacks_(std::move(callbacks)),
      owner_(getpid()),
      pool_(std::make_unique<ThreadPool>(settings_.threads)) {}

void Engine::submit(const std::shared_ptr<Job>& job, bool urgent) {
  const std::lock_guard lock(mutex_);
  if (pool_) pool_->post([this, job] { work(*job); }, pool_->size(), urgent);
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
  int64_t clock = now();  // the end of one sample is the beginning of the next: for small images, looking is not cheap
  for (int64_t i; !closed_.load(std::memory_order_relaxed) && (i = job.next.fetch_add(1)) < n;) {
    std::optional<std::string> reason;
    try {
      process(job, size_t(i), clock);
    } catch (const std::bad_alloc&) {
      reason = "not enough memory to decode it";
    } catch (const DecodeError& error) {
      reason = error.what();
      if (settings_.cache) settings_.cache->absent(job.samples.indices[size_t(i)]);
    } catch (const std::exception& error) {
      reason = error.what();
    }
    if (reason) {
      clock = now();
      const std::lock_guard lock(job.mutex);
      job.failed.push_back(
          {job.samples.position(size_t(i)), reason->empty() ? "no reason was given" : std::move(*reason)});
    }
    if (job.left.fetch_sub(1) == 1) {
      const std::lock_guard lock(job.mutex);
      job.done.notify_all();
    }
  }
}

Fetched Engine::fetch(const Job& job, size_t i, Scratch<uint8_t>& file) const {
  Fetched out;
  const int64_t index = job.samples.indices[i];
  if (const Array& array = settings_.array; array.first.pixels) {
    if (index < 0 || index >= array.count) throw DecodeError("the array has no such sample");
    out.image = array.first;
    out.image.pixels =
        static_cast<const uint8_t*>(array.first.pixels) + (array.rows ? array.rows[index] : index) * array.step;
  } else if (!job.samples.given.empty()) {
    out = job.samples.given[i];
    if (!out.bytes && !out.image.pixels) throw DecodeError("there is no image");
  } else if (job.samples.paths.empty() || job.samples.paths[i].empty()) {
    out = callbacks_.fetch(index);
  } else {
    out.size = read_file(job.samples.paths[i], file);
    out.bytes = file.at_least(0);
  }
  return out;
}

// Stores what the cache has room for, and returns whether the image was decoded whole for that. Pixels do not depend on
// whether they were stored: where there is no room, a JPEG is decoded in the same size, and in full size only as far as needed.
bool Engine::keep(Worker& worker, int64_t index, bool jpeg, const std::string& label, ImageView& image) const {
  if (!callbacks_.image_step && image.channels != settings_.channels) return false;  // a bad sample
  ImageView whole = image;
  if (const auto& views = settings_.keep_for; jpeg && !views.empty())
    whole.shrink = core::recipe_shrink(views.data(), views.size(), image.height, image.width);
  whole.whole();
  const bool wanted = settings_.cache->wants(index, row_bytes(whole) * whole.rows + int64_t(label.size()));
  if (jpeg && (wanted || whole.shrink > 1)) {
    decode_part(worker, {whole.shrink, {0, 0, whole.rows, whole.columns}}, image);
    jpeg = false;
  }
  if (wanted) settings_.cache->keep(index, image, label);
  return !jpeg;
}

void Engine::process(Job& job, size_t i, int64_t& clock) {
  thread_local Worker worker;
  const std::vector<core::ViewSpec>& views = settings_.views;
  const int64_t index = job.samples.indices[i], position = job.samples.position(i);
  const int64_t begin = clock;
  Fetched fetched;
  ImageView image;
  const bool kept = settings_.cache && settings_.cache->find(index, worker.kept, image);
  if (!kept) {
    fetched = fetch(job, i, worker.file);
    image = fetched.image;
  }
  const int64_t read = settings_.array.first.pixels ? begin : now();

  const std::string label = std::move(fetched.label);
  // What is assigned to `fetched` was made from what it held, so it is made first.
  bool jpeg = fetched.bytes && is_jpeg(fetched.bytes, fetched.size);
  if (jpeg) {
    const ImageSize size = worker.jpeg.open(fetched.bytes, fetched.size);
    image.height = size.height;
    image.width = size.width;
    image.channels = settings_.as_stored ? size.channels : 3;
    jpeg = image.channels != 4;
  }
  if (fetched.bytes && !jpeg) {
    Fetched decoded = callbacks_.decode_other(fetched.bytes, fetched.size);
    fetched = std::move(decoded);
    image = fetched.image;
  }
  if (settings_.cache && !kept && keep(worker, index, jpeg, label, image)) jpeg = false;
  if (callbacks_.image_step) {
    if (jpeg) decode_part(worker, {1, {0, 0, image.height, image.width}}, image);
    Fetched other = callbacks_.image_step(index, image);
    fetched = std::move(other);
    image = fetched.image;
    jpeg = false;
  }
  if (image.channels != settings_.channels) {
    throw DecodeError("it has " + std::to_string(image.channels) + " channels, and the source says " +
                      std::to_string(settings_.channels));
  }

  // The plan needs no more than the size.
  core::ViewPlan* plans = job.plans + position * int64_t(views.size());
  const core::DrawKey key{settings_.seed, uint64_t(index), job.samples.epoch, 0, job.samples.repeat};
  core::draw_views(views.data(), views.size(), key, image.height, image.width, plans);
  size_t plain = 0;  // bytes that are left to the device
  if (jpeg && image.channels == 3 && job.gather && position < job.leave)
    plain = plain_jpeg_size(fetched.bytes, fetched.size);
  const bool leave = plain > 0 && job.gather->has_room(int64_t(image.height) * image.width * image.channels);
  const bool may_shrink = jpeg && settings_.may_shrink && !settings_.cache && !leave;
  const Needed needed = needed_by(views.data(), plans, views.size(), image.height, image.width, may_shrink);
  if (jpeg && !leave) decode_part(worker, needed, image, job.gather.get());
  if (leave) {
    job.gather->leave(position, {fetched.bytes, plain, image.height, image.width, needed.window});
  } else if (job.gather && jpeg) {
    job.gather->set(position, image);
  } else if (job.gather) {
    gather_part(part_of(image, needed.window), *job.gather, position);
  } else if (kept || settings_.array.first.pixels) {
    touch(part_of(image, needed.window));
  }
  const int64_t decoded = now();

  for (size_t v = 0; v < views.size() && !job.gather; ++v) {
    worker.renderer.render(image, views[v], plans[v], job.outputs[v], position);
  }
  clock = now();
  times_.read.fetch_add(read - begin, std::memory_order_relaxed);
  times_.decode.fetch_add(decoded - read, std::memory_order_relaxed);
  times_.render.fetch_add(clock - decoded, std::memory_order_relaxed);
  times_.images.fetch_add(1, std::memory_order_relaxed);
  if (worker.file.bytes() > kKeptBytes) worker.file.free();
  if (worker.pixels.bytes() > kKeptBytes) worker.pixels.free();
  if (worker.kept.bytes() > kKeptBytes) worker.kept.free();
  if (worker.renderer.bytes() > kKeptBytes) worker.renderer.free();
}

}  // namespace fastssl::cpu
