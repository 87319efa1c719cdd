#ifndef COWHERD_INLINE_READS_H
#define COWHERD_INLINE_READS_H

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cowherd {

struct Request;

/** A read of what is in the page cache, tried without waiting (RWF_NOWAIT of preadv2(2)). */
struct InlineRead {
  /** Null once the ring has heard of its end. */
  Request* request = nullptr;
  int descriptor = -1;
  const iovec* buffers = nullptr;
  int bufferCount = 0;
  off_t offset = 0;
  /** Bytes, or a negated errno; valid once `ended`. */
  ssize_t result = 0;
  std::atomic<bool> ended{false};
};

/**
 * The cached reads of one ring, in the order of their submission. The ring's thread adds them and
 * hears of their ends; that thread and the read helper copy them, a few at a time, each read by one
 * of the two. All methods but `copySome` belong to the ring's thread.
 */
class InlineReads {
 public:
  /** Reads taken at a time: few, so that two threads share also the last of them. */
  static constexpr uint64_t kTaken = 4;

  /** @param capacity a power of two */
  explicit InlineReads(size_t capacity) : reads_(capacity) {}

  /** Whether there is room for no other read. */
  bool full() const { return added_ - oldest_ == reads_.size(); }
  /** Reads added of whose end the ring has not heard. */
  size_t underWay() const { return underWay_; }
  void add(Request* request);
  /** Lets what was added be copied. */
  void offer() { offered_.store(added_, std::memory_order_release); }
  /** Copies the oldest reads that nobody has taken. @returns false if there are none */
  bool copySome();
  /** Lets nobody begin with what has not been begun: those reads end without a byte. */
  void abandon();

  /** Calls `onEnd(request, result)` for what has ended since. @returns how many that were */
  template <typename OnEnd>
  size_t reap(OnEnd&& onEnd) {
    const size_t before = underWay_;
    const uint64_t taken = taken_.load(std::memory_order_relaxed);
    for (uint64_t at = oldest_; at < taken; at += 1) {
      InlineRead& read = slot(at);
      if (read.request == nullptr || !read.ended.load(std::memory_order_acquire)) continue;
      Request* const request = read.request;
      read.request = nullptr;
      underWay_ -= 1;
      onEnd(request, read.result);
    }
    while (oldest_ < taken && slot(oldest_).request == nullptr) oldest_ += 1;
    return before - underWay_;
  }

 private:
  InlineRead& slot(uint64_t at) { return reads_[at & (reads_.size() - 1)]; }
  /** Takes the oldest reads, at most `most`. @returns whether there were any */
  bool take(uint64_t most, uint64_t* first, uint64_t* end);

  std::vector<InlineRead> reads_;
  uint64_t added_ = 0;
  uint64_t oldest_ = 0;
  size_t underWay_ = 0;
  /** How many of the reads added so far may be copied, and how many somebody has taken. */
  alignas(64) std::atomic<uint64_t> offered_{0};
  alignas(64) std::atomic<uint64_t> taken_{0};
};

}  // namespace cowherd

#endif
