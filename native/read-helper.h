#ifndef COWHERD_READ_HELPER_H
#define COWHERD_READ_HELPER_H

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace cowherd {

/** A read of what is in the page cache, tried without waiting (RWF_NOWAIT of preadv2(2)). */
struct InlineRead {
  int descriptor;
  const iovec* buffers;
  int bufferCount;
  off_t offset;
  /** Bytes, or a negated errno. */
  ssize_t result;
};

/**
 * A thread that shares the copying of a large batch of cached reads with the ring that submits it.
 * Both take reads from the batch until none is left, so a helper that comes late, or not at all,
 * costs nothing but the asking. One batch of one ring at a time.
 */
class ReadHelper {
 public:
  static ReadHelper& shared();
  /** Carries out every read, with the helper's help if the batch is large and it is free. */
  void perform(InlineRead* reads, size_t count);

 private:
  struct Batch {
    InlineRead* reads;
    size_t count;
    std::atomic<size_t> next{0};
    void work();
  };

  ReadHelper();
  void run();
  /** Waits for another batch than the one of that count, awake for a while, then asleep. */
  void await(unsigned seen);

  const bool useful_;
  std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
  std::atomic<Batch*> offered_{nullptr};
  /** Counts batches: one may lie where the last one lay. */
  std::atomic<unsigned> offers_{0};
  /** Whether the helper may be inside a batch; it looks for one only after saying so. */
  std::atomic<bool> inside_{false};
  std::atomic<bool> asleep_{false};
  bool started_ = false;
  std::mutex mutex_;
  std::condition_variable arrived_;
};

}  // namespace cowherd

#endif
