#ifndef COWHERD_DESCRIPTOR_WATCH_H
#define COWHERD_DESCRIPTOR_WATCH_H

#include <napi.h>
#include <uv.h>

#include "callback.h"

namespace cowherd {

class Environment;

/**
 * Calls JavaScript whenever a descriptor can be read from, on the thread whose loop watches it. Of an
 * eventfd the count is taken first. Belongs to the environment's thread.
 */
class DescriptorWatch {
 public:
  /** @param descriptor stays the caller's @param error receives the negated errno when null is returned */
  static DescriptorWatch* create(napi_env env, Environment* environment, int descriptor,
                                 bool isEvent, napi_value onReadable, int* error);

  /** Calls nothing any more. */
  void close();
  /** The JavaScript object is gone. */
  void unreference();

 private:
  DescriptorWatch() = default;
  ~DescriptorWatch() = default;

  void onReadable();

  Environment* environment_ = nullptr;
  Callback callback_;
  /** A copy of ours: a loop can watch each descriptor once only. */
  int descriptor_ = -1;
  bool isEvent_ = false;
  bool closed_ = false;
  int references_ = 1;
  uv_poll_t poll_;
};

/** Adds `watchDescriptor` and `signalEvent` to what JavaScript sees. */
void exportDescriptorWatch(Napi::Object exports);

}  // namespace cowherd

#endif
