#include "read-helper.h"

#include <chrono>
#include <thread>

#include "detached-thread.h"

namespace cowherd {

namespace {

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

bool ReadHelper::attach(InlineReads* reads) {
  if (!useful_ || attached_.test_and_set()) return false;
  if (!started_) {
    const auto run = [](void* helper) -> void* {
      static_cast<ReadHelper*>(helper)->run();
      return nullptr;
    };
    started_ = startDetachedThread(run, this);
  }
  if (!started_) {
    attached_.clear();
    return false;
  }
  client_.store(reads);
  return true;
}

void ReadHelper::wake() {
  offers_.fetch_add(1);
  if (!asleep_.load()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  offered_.notify_one();
}

void ReadHelper::detach() {
  client_.store(nullptr);
  attached_.clear();
}

void ReadHelper::await(const InlineReads* reads) {
  while (inside_.load() == reads) pause();
}

void ReadHelper::run() {
  for (;;) {
    const unsigned seen = offers_.load();
    InlineReads* const reads = client_.load();
    inside_.store(reads);
    // Only now is it certain that whoever gives them up will wait.
    if (reads != nullptr && client_.load() == reads) {
      while (reads->copySome()) continue;
    }
    inside_.store(nullptr);
    awaitOffer(seen);
  }
}

void ReadHelper::awaitOffer(unsigned seen) {
  const auto offered = [this, seen] { return offers_.load() != seen; };
  const auto until = std::chrono::steady_clock::now() + kAwake;
  while (!offered()) {
    for (int turn = 0; turn < 32 && !offered(); turn += 1) pause();
    if (std::chrono::steady_clock::now() < until) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    asleep_.store(true);
    offered_.wait(lock, offered);
    asleep_.store(false);
  }
}

}  // namespace cowherd
