#ifndef COWHERD_URING_H
#define COWHERD_URING_H

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace cowherd {

/**
 * An io_uring instance through raw system calls (io_uring_setup(2), io_uring_enter(2)); the kernel
 * may be as old as 5.10. One thread creates, submits and reaps.
 */
class Uring {
 public:
  /**
   * @param entries submissions that fit before a system call is needed, a power of two
   * @param completions completions that may be outstanding, a power of two
   * @param error receives the negated errno when null is returned
   */
  static std::unique_ptr<Uring> create(unsigned entries, unsigned completions, int* error);
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  /** Readable, as poll(2) sees it, while completions wait. */
  int descriptor() const { return descriptor_; }
  /** The next submission to fill in, zeroed; null when the queue is full and must be submitted. */
  io_uring_sqe* prepare();
  unsigned prepared() const { return prepared_; }
  /**
   * Submits what was prepared and, if `wait` is above zero, waits for that many completions.
   * @returns 0 or a negated errno; EBUSY means that completions must be reaped first
   */
  int submit(unsigned wait = 0);

  /** Calls `visit(userData, result)` for every completion that is there. */
  template <typename Visit>
  unsigned reap(Visit visit) {
    unsigned head = *completionHead_;
    const unsigned tail = __atomic_load_n(completionTail_, __ATOMIC_ACQUIRE);
    const unsigned count = tail - head;
    while (head != tail) {
      const io_uring_cqe& entry = completions_[head & completionMask_];
      const uint64_t userData = entry.user_data;
      const int result = entry.res;
      head += 1;
      __atomic_store_n(completionHead_, head, __ATOMIC_RELEASE);
      visit(userData, result);
    }
    return count;
  }

 private:
  Uring() = default;

  int descriptor_ = -1;
  unsigned prepared_ = 0;
  unsigned localTail_ = 0;

  void* ringMemory_ = nullptr;
  size_t ringLength_ = 0;
  void* entryMemory_ = nullptr;
  size_t entryLength_ = 0;

  unsigned* submissionHead_ = nullptr;
  unsigned* submissionTail_ = nullptr;
  unsigned submissionMask_ = 0;
  unsigned submissionEntries_ = 0;
  io_uring_sqe* submissions_ = nullptr;
  unsigned* completionHead_ = nullptr;
  unsigned* completionTail_ = nullptr;
  unsigned completionMask_ = 0;
  const io_uring_cqe* completions_ = nullptr;
};

}  // namespace cowherd

#endif
