#include "environment.h"

#include <vector>

#include "descriptor-watch.h"
#include "file.h"
#include "ring.h"

namespace cowherd {

Environment* Environment::create(napi_env env) {
  Environment* const environment = new Environment();
  napi_set_instance_data(env, environment, nullptr, nullptr);
  napi_add_async_cleanup_hook(env, onCleanup, environment, &environment->cleanup_);
  return environment;
}

void Environment::forget(File* file) {
  const auto found = files_.find(file);
  if (found == files_.end()) return;
  found->second -= 1;
  if (found->second == 0) files_.erase(found);
}

int Environment::setWordAtEnd(int32_t* word, int32_t value, napi_ref view) {
  lastNote_ += 1;
  wordsAtEnd_[lastNote_] = {word, value, view};
  return lastNote_;
}

napi_ref Environment::keepWord(int note) {
  const auto found = wordsAtEnd_.find(note);
  if (found == wordsAtEnd_.end()) return nullptr;
  const napi_ref view = found->second.view;
  wordsAtEnd_.erase(found);
  return view;
}

void Environment::handleClosed() {
  closingHandles_ -= 1;
  if (cleaning_ && closingHandles_ == 0) finishCleanup();
}

void Environment::onCleanup(napi_async_cleanup_hook_handle handle, void* data) {
  Environment* const environment = static_cast<Environment*>(data);
  environment->cleaning_ = true;
  // First: others may be waiting for what this thread held.
  for (const auto& noted : environment->wordsAtEnd_) {
    __atomic_store_n(noted.second.word, noted.second.value, __ATOMIC_SEQ_CST);
  }
  environment->wordsAtEnd_.clear();
  const std::vector<DescriptorWatch*> watches(environment->watches_.begin(),
                                              environment->watches_.end());
  for (DescriptorWatch* watch : watches) watch->close();
  const std::vector<Ring*> rings(environment->rings_.begin(), environment->rings_.end());
  for (Ring* ring : rings) ring->close();
  for (const auto& held : environment->files_) {
    for (int count = held.second; count > 0; count -= 1) held.first->release();
  }
  environment->files_.clear();
  if (environment->closingHandles_ == 0) environment->finishCleanup();
}

void Environment::finishCleanup() {
  // Rings whose JavaScript objects are finalized later only free themselves.
  napi_remove_async_cleanup_hook(cleanup_);
  delete this;
}

}  // namespace cowherd
