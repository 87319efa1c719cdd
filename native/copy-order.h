#ifndef COWHERD_COPY_ORDER_H
#define COWHERD_COPY_ORDER_H

#include <napi.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace cowherd {

/** Bytes of the target that one copy, or a part of it, is written to. */
struct CopyPlace {
  uint64_t start = 0;
  uint64_t length = 0;
  /** Whether they read as zeroes before. */
  bool isZero = false;
};

/**
 * The order of the copies into one file: they read side by side, and take their places and write one
 * after the other, as they were begun. All methods may be called from any thread.
 */
class CopyOrder {
 public:
  /** @param granule bytes that places are multiples of; 0 if every copy has a place of its own */
  explicit CopyOrder(uint64_t granule) : granule_(granule) {}

  uint64_t granule() const { return granule_; }
  /** Adds room, which is used after all that was added before. */
  void offer(const CopyPlace& room);
  /** Takes at most so many bytes of room, all of one piece; none if there is no room left. */
  CopyPlace take(uint64_t most);

  /** @returns the ticket of a copy that begins now */
  uint64_t join();
  /** Waits for the end of all copies that began before this one. */
  void await(uint64_t ticket);
  /** Ends a copy, in whatever order. */
  void leave(uint64_t ticket);

 private:
  const uint64_t granule_;
  std::mutex mutex_;
  /** The threads that wait for their turn, by their tickets: one is woken, not all. */
  std::map<uint64_t, std::condition_variable*> waiting_;
  std::deque<CopyPlace> room_;
  uint64_t joined_ = 0;
  /** The oldest ticket whose copy has not ended, and younger ones whose copies have. */
  uint64_t turn_ = 0;
  std::set<uint64_t> left_;
};

/** Adds `createCopyOrder(granule)` to what the addon exports. */
void exportCopyOrder(Napi::Object exports);
/** What an object of `createCopyOrder` stands for; null, with an exception, if it is none. */
std::shared_ptr<CopyOrder> copyOrderOf(napi_env env, napi_value object);

}  // namespace cowherd

#endif
