#ifndef COWHERD_RING_H
#define COWHERD_RING_H

#include <node_api.h>
#include <uv.h>

#include <atomic>
#include <memory>
#include <vector>

#include "callback.h"
#include "copy-order.h"
#include "inline-reads.h"
#include "request.h"
#include "uring.h"

namespace cowherd {

class Environment;

/** Which means a ring may use. The numbers are shared with src/native/ring.ts. */
enum class Engine : int { kAuto = 0, kUring = 1, kThreads = 2 };

/**
 * One thread's requests, from a table it shares with JavaScript to whichever engine is best for
 * each, and back as a batch of completed slots. All methods but `post` and `resume` belong to the
 * environment's thread.
 *
 * The table has one record of eight doubles a slot: address, offset, length, opcode, file,
 * parameter, second address, second length. On completion the first becomes the result: bytes, or
 * a negated errno.
 */
class Ring {
 public:
  static constexpr size_t kRecordFields = 8;

  /** Memory shared with JavaScript, which keeps it alive while the ring is open. */
  struct Shared {
    double* table;
    const int32_t* pending;
    int32_t* completed;
    uint32_t slots;
  };

  /** @param error receives the negated errno when null is returned */
  static Ring* create(napi_env env, Environment* environment, Engine engine, const Shared& shared,
                      napi_value onCompletions, int* error);

  /**
   * Starts the first `count` slots of `pending`, in one system call where there is one.
   * @returns how many slots of `completed` are valid: what has ended by now, these or earlier ones
   */
  uint32_t submit(uint32_t count);
  /** The buffers of a slot's next vectored operation. */
  std::vector<iovec>& vectorOf(uint32_t slot) { return requests_[slot].vector; }
  /** Holds memory until the slot's next operation has ended. */
  void hold(uint32_t slot, std::shared_ptr<void> memory) {
    requests_[slot].memory = std::move(memory);
  }
  /** Has the slot's next operation, which is one of ciphers, use this one. */
  void useCipher(uint32_t slot, std::shared_ptr<SectorCipher> cipher) {
    requests_[slot].cipher = std::move(cipher);
  }
  /** Has the slot's next operation, which is a copy, come after all copies of this order that started. */
  void joinOrder(uint32_t slot, std::shared_ptr<CopyOrder> order) {
    requests_[slot].order = std::move(order);
  }
  uint32_t slots() const { return shared_.slots; }
  bool usesUring() const { return uring_ != nullptr; }
  bool closed() const { return closed_; }

  /**
   * Drops what has not begun, waits for what has, and gives everything back. No completion is
   * reported any more.
   */
  void close();
  /** The JavaScript object is gone. */
  void unreference();

  /** From any thread: this request has ended with `request->result`. */
  void post(Request* request, bool wake);
  /** From any thread: the write gate let this request in. */
  void resume(Request* request);

 private:
  explicit Ring(size_t mostReads) : inlineReads_(mostReads) {}
  ~Ring() = default;

  /** Divides a copy or comparison of data into its parts. */
  void divide(Request* request);
  void toPoolInParts(Request* request);
  void start(Request* request);
  void startRead(Request* request);
  /** Begins the cached reads that `startRead` put aside, with the helper if there are many. */
  void shareInlineReads();
  /** Copies cached reads until so many have ended, or the helper has the rest. */
  void performInlineReads(size_t wanted);
  size_t reapInlineReads();
  void onInlineResult(Request* request, ssize_t result);
  /** Starts a read, or the rest of one, that may have to wait for the disk. */
  void startWaitingRead(Request* request);
  void startAdmitted(Request* request);
  bool enterGate(Request* request);
  void toUring(Request* request);
  void toPool(Request* request);
  void finish(Request* request, int64_t result);
  void onUringResult(Request* request, int result);
  void flush();
  void flushPools();
  void drainMailbox();
  void push(Request* request);
  void wake();
  /** Before going back to JavaScript: sees to it that this thread comes back for the rest. */
  void awaitRest();
  void keepLoopAlive(bool alive);
  static void onWakeup(Ring* ring);

  Environment* environment_ = nullptr;
  Engine engine_ = Engine::kAuto;
  Shared shared_ = {};
  Callback callback_;
  std::vector<Request> requests_;
  InlineReads inlineReads_;
  /** Whether the read helper is attached to this ring. */
  bool helped_ = false;
  std::unique_ptr<Uring> uring_;

  uint32_t completedCount_ = 0;
  /** Requests started and not yet reported. */
  uint32_t inFlight_ = 0;
  uint32_t inUring_ = 0;
  bool loopKeptAlive_ = false;
  bool loopKeptAwake_ = false;
  bool closed_ = false;
  bool draining_ = false;
  int references_ = 1;

  struct PoolList {
    Request* first = nullptr;
    Request* last = nullptr;
    size_t count = 0;
    void append(Request* request);
  };
  PoolList filePool_;
  PoolList dataPool_;
  PoolList codecPool_;

  uv_poll_t poll_;
  uv_async_t async_;
  uv_idle_t idle_;

  /** Requests that other threads hand back, newest first. */
  std::atomic<Request*> mailbox_{nullptr};
  /** Other threads that are inside `post` or `resume`. */
  std::atomic<int> visitors_{0};
};

}  // namespace cowherd

#endif
