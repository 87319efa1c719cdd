#ifndef COWHERD_ENVIRONMENT_H
#define COWHERD_ENVIRONMENT_H

#include <node_api.h>

#include <unordered_map>
#include <unordered_set>

namespace cowherd {

class File;
class Ring;

/**
 * What one JavaScript environment (the main thread or a worker) holds of us, so that its end, by
 * whatever way, gives everything back: I/O is drained, rings and descriptors are closed.
 */
class Environment {
 public:
  /** Makes this environment's instance and registers its clean-up. */
  static Environment* create(napi_env env);

  void add(Ring* ring) { rings_.insert(ring); }
  void remove(Ring* ring) { rings_.erase(ring); }
  /** Notes one reference to a file, which the environment's end would drop. */
  void hold(File* file) { files_[file] += 1; }
  /** Takes such a note back, because somebody else drops the reference. */
  void forget(File* file);

  void handleClosing() { closingHandles_ += 1; }
  void handleClosed();

 private:
  static void onCleanup(napi_async_cleanup_hook_handle handle, void* data);
  void finishCleanup();

  std::unordered_set<Ring*> rings_;
  std::unordered_map<File*, int> files_;
  int closingHandles_ = 0;
  bool cleaning_ = false;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
};

}  // namespace cowherd

#endif
