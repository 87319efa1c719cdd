#include "buffer-memory.h"

#include <dlfcn.h>

#include <atomic>

namespace cowherd {

namespace {

using BackingStore = std::shared_ptr<void>;

/**
 * std::shared_ptr<v8::BackingStore> v8::ArrayBuffer::GetBackingStore(), as a function of `this`: on
 * the ABIs we are built for a member function takes it as its first parameter. A napi_value is what
 * `this` is there: the place of a handle.
 */
using GetBackingStore = BackingStore (*)(napi_value arrayBuffer);
/** void* v8::BackingStore::Data() const */
using BackingStoreData = void* (*)(const void* store);

// Each thread that loads the addon stores the same, while others may be reading.
std::atomic<GetBackingStore> getBackingStore{nullptr};
std::atomic<BackingStoreData> backingStoreData{nullptr};

/** (arrayBuffer) => holder */
napi_value holdMemory(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  void* address;
  BackingStore memory = memoryOf(env, argument, &address);
  if (memory == nullptr) return nullptr;
  BackingStore* const store = new BackingStore(std::move(memory));
  const auto release = [](napi_env, void* data, void*) { delete static_cast<BackingStore*>(data); };
  napi_value holder = nullptr;
  if (napi_create_external(env, store, release, nullptr, &holder) != napi_ok) delete store;
  return holder;
}

/** Whether V8's function gives the memory of an ArrayBuffer that we have just made. */
bool isAsExpected(napi_env env, GetBackingStore get, BackingStoreData dataOf) {
  void* memory = nullptr;
  napi_value buffer = nullptr;
  if (napi_create_arraybuffer(env, 64, &memory, &buffer) != napi_ok) return false;
  const BackingStore store = get(buffer);
  return store != nullptr && dataOf(store.get()) == memory;
}

}  // namespace

std::shared_ptr<void> memoryOf(napi_env env, napi_value arrayBuffer, void** address) {
  bool isArrayBuffer = false;
  if (napi_is_arraybuffer(env, arrayBuffer, &isArrayBuffer) != napi_ok || !isArrayBuffer) {
    napi_throw_type_error(env, nullptr, "an ArrayBuffer is expected");
    return nullptr;
  }
  BackingStore store = getBackingStore.load(std::memory_order_relaxed)(arrayBuffer);
  *address = backingStoreData.load(std::memory_order_relaxed)(store.get());
  return store;
}

void exportHoldMemory(Napi::Object exports) {
  const auto get = reinterpret_cast<GetBackingStore>(
      ::dlsym(RTLD_DEFAULT, "_ZN2v811ArrayBuffer15GetBackingStoreEv"));
  const auto dataOf = reinterpret_cast<BackingStoreData>(
      ::dlsym(RTLD_DEFAULT, "_ZNK2v812BackingStore4DataEv"));
  const napi_env env = exports.Env();
  if (get == nullptr || dataOf == nullptr || !isAsExpected(env, get, dataOf)) return;
  getBackingStore.store(get, std::memory_order_relaxed);
  backingStoreData.store(dataOf, std::memory_order_relaxed);
  const napi_property_descriptor property = {
      "holdMemory", nullptr, holdMemory, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &property);
}

}  // namespace cowherd
