#include "read-helper.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace cowherd {

namespace {

constexpr size_t kLeastReads = 16;
/** Reads taken at a time: few, so that both end together. */
constexpr size_t kTaken = 4;
/** JavaScript prepares its next batch in about this time; sleeping in between would cost more. */
constexpr auto kAwake = std::chrono::microseconds(60);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// Never destroyed: the detached thread may still look at it while the process exits.
ReadHelper& ReadHelper::shared() {
  static ReadHelper* const helper = new ReadHelper();
  return *helper;
}

ReadHelper::ReadHelper() : useful_(std::thread::hardware_concurrency() > 1) {}

void ReadHelper::Batch::work() {
  for (;;) {
    const size_t first = next.fetch_add(kTaken);
    if (first >= count) return;
    const size_t end = std::min(first + kTaken, count);
    for (size_t index = first; index < end; index += 1) {
      InlineRead& read = reads[index];
      const ssize_t bytes =
          ::preadv2(read.descriptor, read.buffers, read.bufferCount, read.offset, RWF_NOWAIT);
      read.result = bytes < 0 ? -errno : bytes;
    }
  }
}

void ReadHelper::perform(InlineRead* reads, size_t count) {
  Batch batch{reads, count, {0}};
  if (!useful_ || count < kLeastReads || taken_.test_and_set()) {
    batch.work();
    return;
  }
  if (!started_) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    started_ = ::pthread_create(
                   &thread, nullptr,
                   [](void* helper) -> void* {
                     static_cast<ReadHelper*>(helper)->run();
                     return nullptr;
                   },
                   this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (started_) ::pthread_detach(thread);
  }
  offers_.fetch_add(1);
  offered_.store(&batch);
  if (asleep_.load()) {
    std::lock_guard<std::mutex> lock(mutex_);
    arrived_.notify_one();
  }
  batch.work();
  offered_.store(nullptr);
  while (inside_.load()) pause();
  taken_.clear();
}

void ReadHelper::run() {
  unsigned seen = 0;
  for (;;) {
    await(seen);
    inside_.store(true);
    seen = offers_.load();
    Batch* const batch = offered_.load();
    if (batch != nullptr) batch->work();
    inside_.store(false);
  }
}

void ReadHelper::await(unsigned seen) {
  // What was seen already stays offered until the ring's part of it is done, too.
  const auto arrived = [this, seen] { return offered_.load() != nullptr && offers_.load() != seen; };
  const auto until = std::chrono::steady_clock::now() + kAwake;
  while (!arrived()) {
    for (int turn = 0; turn < 32 && !arrived(); turn += 1) pause();
    if (std::chrono::steady_clock::now() < until) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    asleep_.store(true);
    arrived_.wait(lock, arrived);
    asleep_.store(false);
  }
}

}  // namespace cowherd
