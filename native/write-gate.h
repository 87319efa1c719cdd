#ifndef COWHERD_WRITE_GATE_H
#define COWHERD_WRITE_GATE_H

#include <mutex>

#include "request.h"

namespace cowherd {

/**
 * Keeps the read-modify-write cycles of unaligned writes to an O_DIRECT file away from every other
 * write to the same blocks, whichever thread of the process they come from. Aligned writes are
 * shared with one another; an unaligned write is exclusive over the blocks it rewrites.
 */
class WriteGate {
 public:
  /**
   * Asks to start the write that `request.gated` and `request.gateExclusive` describe.
   * @returns false if it must wait: the gate then owns the request until it hands it to its ring
   */
  bool enter(Request* request);
  /** Ends a write that entered and hands the writes it held up, in order, to their rings. */
  void leave(Request* request);
  /** Takes a ring's waiting requests out again, as a list, because the ring is going away. */
  Request* abandon(const Ring* ring);

 private:
  bool conflicts(const Request* request) const;
  void admit(Request* request);

  std::mutex mutex_;
  Request* active_ = nullptr;
  size_t exclusiveCount_ = 0;
  Request* waitingFirst_ = nullptr;
  Request* waitingLast_ = nullptr;
};

}  // namespace cowherd

#endif
