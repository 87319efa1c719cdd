#ifndef COWHERD_COPY_ORDER_H
#define COWHERD_COPY_ORDER_H

#include <napi.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace cowherd {

struct Request;

/** Bytes of the target that one copy, or a part of it, is written to. */
struct CopyPlace {
  uint64_t start = 0;
  uint64_t length = 0;
  /** Whether they read as zeroes before. */
  bool isZero = false;
};

/**
 * The order of the copies into one file: they read side by side, and take their places and write one
 * after the other, as they were begun. A copy that has read before its turn is kept for the thread that
 * ends the copy before it: to wake another thread for each would take as long as the write. All methods
 * may be called from any thread.
 */
class CopyOrder {
 public:
  /** @param granule bytes that places are multiples of; 0 if every copy has a place of its own */
  CopyOrder(uint64_t granule, bool isBestAlone) : granule_(granule), isBestAlone_(isBestAlone) {}

  uint64_t granule() const { return granule_; }
  /** Adds room, which is used after all that was added before. */
  void offer(const CopyPlace& room);
  /** Takes at most so many bytes of room, all of one piece; none if there is no room left. */
  CopyPlace take(uint64_t most);

  /** @returns the ticket of a copy that begins now */
  uint64_t join();
  /**
   * Asks whether a copy that has read may write, all copies before it having ended. Waits where too many
   * are kept already. @returns false if the order keeps it, until `leave` hands it out
   */
  bool begin(Request* request);
  /** Ends a copy, in whatever order. @returns a kept one whose turn it is now, to be carried on; or null */
  Request* leave(uint64_t ticket);

  /** Takes note of how long a copy has read and written. */
  void note(std::chrono::nanoseconds reading, std::chrono::nanoseconds writing);
  /**
   * Whether one thread does best for all copies, as long as what they read is at hand. Once false it stays
   * so, or copies might overtake those before them.
   */
  bool isBestAlone() const { return isBestAlone_.load(std::memory_order_relaxed); }

 private:
  const uint64_t granule_;
  std::atomic<bool> isBestAlone_;
  std::mutex mutex_;
  /** Of the last copies, and how many those are. */
  std::chrono::nanoseconds reading_{0};
  std::chrono::nanoseconds writing_{0};
  size_t noted_ = 0;
  std::deque<CopyPlace> room_;
  /** Copies that have read before their turn, by their tickets, and those who wait to add theirs. */
  std::map<uint64_t, Request*> kept_;
  size_t waiting_ = 0;
  std::condition_variable fewerKept_;
  uint64_t joined_ = 0;
  /** The oldest ticket whose copy has not ended, and younger ones whose copies have. */
  uint64_t turn_ = 0;
  std::set<uint64_t> left_;
};

/** Adds `createCopyOrder(granule, isShared)` to what the addon exports. */
void exportCopyOrder(Napi::Object exports);
/** What an object of `createCopyOrder` stands for; null, with an exception, if it is none. */
std::shared_ptr<CopyOrder> copyOrderOf(napi_env env, napi_value object);

}  // namespace cowherd

#endif
