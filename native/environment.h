#ifndef COWHERD_ENVIRONMENT_H
#define COWHERD_ENVIRONMENT_H

#include <node_api.h>

#include <cstdint>
#include <unordered_map>
#include <unordered_set>

namespace cowherd {

class DescriptorWatch;
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
  void add(DescriptorWatch* watch) { watches_.insert(watch); }
  void remove(DescriptorWatch* watch) { watches_.erase(watch); }
  /** Notes one reference to a file, which the environment's end would drop. */
  void hold(File* file) { files_[file] += 1; }
  /** Takes such a note back, because somebody else drops the reference. */
  void forget(File* file);

  /**
   * Notes a word that is to take a value when the environment ends, however it ends.
   * @param view keeps the word's memory alive until then
   * @returns what `keepWord` takes
   */
  int setWordAtEnd(int32_t* word, int32_t value, napi_ref view);
  /** Takes such a note back. @returns the reference to give up, or null if there is no such note */
  napi_ref keepWord(int note);

  void handleClosing() { closingHandles_ += 1; }
  void handleClosed();

 private:
  static void onCleanup(napi_async_cleanup_hook_handle handle, void* data);
  void finishCleanup();

  struct WordAtEnd {
    int32_t* word;
    int32_t value;
    napi_ref view;
  };

  std::unordered_map<int, WordAtEnd> wordsAtEnd_;
  int lastNote_ = 0;
  std::unordered_set<Ring*> rings_;
  std::unordered_set<DescriptorWatch*> watches_;
  std::unordered_map<File*, int> files_;
  int closingHandles_ = 0;
  bool cleaning_ = false;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
};

}  // namespace cowherd

#endif
