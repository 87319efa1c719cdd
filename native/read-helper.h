#ifndef COWHERD_READ_HELPER_H
#define COWHERD_READ_HELPER_H

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "inline-reads.h"

namespace cowherd {

/**
 * A thread that copies cached reads of a ring while the ring's own thread is in JavaScript, or
 * copies others. One ring at a time; a helper that comes late, or not at all, costs that ring
 * nothing but the asking.
 */
class ReadHelper {
 public:
  static ReadHelper& shared();
  /** Whether that ring's reads are helped with from now on. */
  bool attach(InlineReads* reads);
  /** Tells the helper that the attached ring has offered reads. */
  void wake();
  /** The attached ring's reads need no help now; the helper may still be among them. */
  void detach();
  /** Waits until the helper is not among those reads, which are attached no more. */
  void await(const InlineReads* reads);

 private:
  ReadHelper();
  void run();
  /** Waits for another offer than the one of that count, awake for a while, then asleep. */
  void awaitOffer(unsigned seen);

  const bool useful_;
  std::atomic_flag attached_ = ATOMIC_FLAG_INIT;
  std::atomic<InlineReads*> client_{nullptr};
  /** Among whose reads the helper is; it looks for some only after saying so. */
  std::atomic<InlineReads*> inside_{nullptr};
  std::atomic<unsigned> offers_{0};
  std::atomic<bool> asleep_{false};
  bool started_ = false;
  std::mutex mutex_;
  std::condition_variable offered_;
};

}  // namespace cowherd

#endif
