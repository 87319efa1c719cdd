#include <napi.h>

#include "buffer-memory.h"
#include "codec.h"
#include "copy-order.h"
#include "descriptor.h"
#include "descriptor-message.h"
#include "descriptor-watch.h"
#include "environment.h"
#include "file-facts.h"
#include "fuse.h"
#include "mapped-memory.h"
#include "restart.h"
#include "ring.h"
#include "sector-cipher.h"
#include "thread-affinity.h"
#include "zero-scan.h"

namespace cowherd {

namespace {

/** The memory of any typed array, also over a SharedArrayBuffer. */
bool viewMemory(napi_env env, napi_value value, void** memory, size_t* lengthBytes) {
  napi_typedarray_type type;
  size_t length;
  napi_value buffer = nullptr;
  size_t offset;
  if (napi_get_typedarray_info(env, value, &type, &length, memory, &buffer, &offset) != napi_ok) {
    napi_throw_type_error(env, nullptr, "a typed array is expected");
    return false;
  }
  size_t elementBytes = 1;
  if (type == napi_int32_array || type == napi_uint32_array) elementBytes = 4;
  if (type == napi_float64_array) elementBytes = 8;
  *lengthBytes = length * elementBytes;
  return true;
}

/** (view) => address of its first byte. Exact as a double: addresses have at most 52 bits. */
napi_value addressOf(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  void* memory;
  size_t length;
  if (!viewMemory(env, argument, &memory, &length)) return nullptr;
  napi_value result = nullptr;
  napi_create_double(env, static_cast<double>(reinterpret_cast<uintptr_t>(memory)), &result);
  return result;
}

napi_value isZeroView(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  void* memory;
  size_t length;
  if (!viewMemory(env, argument, &memory, &length)) return nullptr;
  napi_value result = nullptr;
  napi_get_boolean(env, isZero(static_cast<const uint8_t*>(memory), length), &result);
  return result;
}

napi_value zeroRunsOfView(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3] = {};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  void* memory;
  size_t length;
  void* lengths;
  size_t lengthsBytes;
  uint32_t granularity = 0;
  if (!viewMemory(env, arguments[0], &memory, &length) ||
      !viewMemory(env, arguments[2], &lengths, &lengthsBytes)) {
    return nullptr;
  }
  napi_get_value_uint32(env, arguments[1], &granularity);
  napi_value result = nullptr;
  napi_create_int32(env,
                    granularity == 0 ? -1
                                     : zeroRuns(static_cast<const uint8_t*>(memory), length,
                                                granularity, static_cast<int32_t*>(lengths),
                                                lengthsBytes / sizeof(int32_t)),
                    &result);
  return result;
}

Ring* ringOf(napi_env env, napi_callback_info info, size_t* count, napi_value* arguments) {
  void* data = nullptr;
  napi_get_cb_info(env, info, count, arguments, nullptr, &data);
  return static_cast<Ring*>(data);
}

/** @returns false, with an exception, if the value is no slot of the ring */
bool slotOf(napi_env env, napi_value value, const Ring* ring, uint32_t* slot) {
  if (napi_get_value_uint32(env, value, slot) == napi_ok && *slot < ring->slots()) return true;
  napi_throw_type_error(env, nullptr, "a slot is expected");
  return false;
}

napi_value submit(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  Ring* const ring = ringOf(env, info, &count, &argument);
  uint32_t pending = 0;
  napi_get_value_uint32(env, argument, &pending);
  napi_value completed = nullptr;
  napi_create_uint32(env, ring->submit(pending), &completed);
  return completed;
}

napi_value setVector(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2] = {};
  Ring* const ring = ringOf(env, info, &count, arguments);
  uint32_t slot = 0;
  uint32_t views = 0;
  napi_get_value_uint32(env, arguments[0], &slot);
  if (slot >= ring->slots() ||
      napi_get_array_length(env, arguments[1], &views) != napi_ok) {
    napi_throw_type_error(env, nullptr, "a slot and an array are expected");
    return nullptr;
  }
  std::vector<iovec>& vector = ring->vectorOf(slot);
  vector.clear();
  double total = 0;
  for (uint32_t index = 0; index < views; index += 1) {
    napi_value view = nullptr;
    napi_get_element(env, arguments[1], index, &view);
    iovec part;
    if (!viewMemory(env, view, &part.iov_base, &part.iov_len)) return nullptr;
    if (part.iov_len == 0) continue;
    vector.push_back(part);
    total += static_cast<double>(part.iov_len);
  }
  napi_value result = nullptr;
  napi_create_double(env, total, &result);
  return result;
}

/** (slot, arrayBuffer) => address of its first byte; the memory is held until the slot's operation ends */
napi_value hold(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2] = {};
  Ring* const ring = ringOf(env, info, &count, arguments);
  uint32_t slot = 0;
  if (!slotOf(env, arguments[0], ring, &slot)) return nullptr;
  void* address;
  std::shared_ptr<void> memory = memoryOf(env, arguments[1], &address);
  if (memory == nullptr) return nullptr;
  ring->hold(slot, std::move(memory));
  napi_value result = nullptr;
  napi_create_double(env, static_cast<double>(reinterpret_cast<uintptr_t>(address)), &result);
  return result;
}

/** (slot, cipher) */
napi_value useCipher(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2] = {};
  Ring* const ring = ringOf(env, info, &count, arguments);
  uint32_t slot = 0;
  if (!slotOf(env, arguments[0], ring, &slot)) return nullptr;
  std::shared_ptr<SectorCipher> cipher = sectorCipherOf(env, arguments[1]);
  if (cipher != nullptr) ring->useCipher(slot, std::move(cipher));
  return nullptr;
}

/** (slot, order) */
napi_value joinOrder(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2] = {};
  Ring* const ring = ringOf(env, info, &count, arguments);
  uint32_t slot = 0;
  if (!slotOf(env, arguments[0], ring, &slot)) return nullptr;
  std::shared_ptr<CopyOrder> order = copyOrderOf(env, arguments[1]);
  if (order != nullptr) ring->joinOrder(slot, std::move(order));
  return nullptr;
}

napi_value closeRing(napi_env env, napi_callback_info info) {
  size_t count = 0;
  ringOf(env, info, &count, nullptr)->close();
  return nullptr;
}

/** Adds one to a count, unless it is zero. @returns whether it did */
bool join(int32_t* count) {
  int32_t seen = __atomic_load_n(count, __ATOMIC_SEQ_CST);
  while (seen != 0 && !__atomic_compare_exchange_n(count, &seen, seen + 1, false, __ATOMIC_SEQ_CST,
                                                   __ATOMIC_SEQ_CST)) {
  }
  return seen != 0;
}

/**
 * (words, index, value, members?) => note; see Environment::setWordAtEnd. With `members`, first joins
 * by adding one to its first word, and notes nothing (0) if nobody is a member any more: JavaScript
 * can be stopped between any two of its steps, but not in here.
 */
napi_value setWordAtEnd(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4] = {};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  void* memory;
  size_t lengthBytes;
  uint32_t index = 0;
  int32_t value = 0;
  napi_ref view = nullptr;
  if (!viewMemory(env, arguments[0], &memory, &lengthBytes)) return nullptr;
  napi_get_value_uint32(env, arguments[1], &index);
  napi_get_value_int32(env, arguments[2], &value);
  if ((static_cast<size_t>(index) + 1) * sizeof(int32_t) > lengthBytes ||
      napi_create_reference(env, arguments[0], 1, &view) != napi_ok) {
    napi_throw_range_error(env, nullptr, "a word of the array is expected");
    return nullptr;
  }
  napi_value note = nullptr;
  if (count > 3) {
    void* members;
    size_t membersBytes;
    if (!viewMemory(env, arguments[3], &members, &membersBytes)) return nullptr;
    if (membersBytes < sizeof(int32_t) || !join(static_cast<int32_t*>(members))) {
      napi_delete_reference(env, view);
      napi_create_int32(env, 0, &note);
      return note;
    }
  }
  void* environment = nullptr;
  napi_get_instance_data(env, &environment);
  napi_create_int32(env,
                    static_cast<Environment*>(environment)
                        ->setWordAtEnd(static_cast<int32_t*>(memory) + index, value, view),
                    &note);
  return note;
}

/** (note) */
napi_value keepWord(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  int32_t note = 0;
  napi_get_value_int32(env, argument, &note);
  void* environment = nullptr;
  napi_get_instance_data(env, &environment);
  const napi_ref view = static_cast<Environment*>(environment)->keepWord(note);
  if (view != nullptr) napi_delete_reference(env, view);
  return nullptr;
}

/**
 * (engine, table, pending, completed, onCompletions) => ring | -errno
 */
Napi::Value createRing(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  void* table = nullptr;
  void* pending = nullptr;
  void* completed = nullptr;
  size_t tableBytes = 0;
  size_t pendingBytes = 0;
  size_t completedBytes = 0;
  if (!viewMemory(env, info[1], &table, &tableBytes) ||
      !viewMemory(env, info[2], &pending, &pendingBytes) ||
      !viewMemory(env, info[3], &completed, &completedBytes)) {
    return env.Undefined();
  }
  const size_t slots = tableBytes / (Ring::kRecordFields * sizeof(double));
  if (pendingBytes < slots * sizeof(int32_t) || completedBytes < slots * sizeof(int32_t)) {
    Napi::TypeError::New(env, "pending and completed need room for every slot")
        .ThrowAsJavaScriptException();
    return env.Undefined();
  }
  const Ring::Shared shared = {static_cast<double*>(table), static_cast<const int32_t*>(pending),
                               static_cast<int32_t*>(completed), static_cast<uint32_t>(slots)};
  void* environment = nullptr;
  napi_get_instance_data(env, &environment);
  int error = 0;
  Ring* const ring =
      Ring::create(env, static_cast<Environment*>(environment),
                   static_cast<Engine>(info[0].As<Napi::Number>().Int32Value()), shared, info[4],
                   &error);
  if (ring == nullptr) return Napi::Number::New(env, error);

  Napi::Object object = Napi::Object::New(env);
  // In an environment that is being stopped any of these calls may fail; the ring must then not be
  // left to an object that does not know of it.
  const napi_property_descriptor properties[] = {
      {"submit", nullptr, submit, nullptr, nullptr, nullptr, napi_enumerable, ring},
      {"hold", nullptr, hold, nullptr, nullptr, nullptr, napi_enumerable, ring},
      {"joinOrder", nullptr, joinOrder, nullptr, nullptr, nullptr, napi_enumerable, ring},
      {"useCipher", nullptr, useCipher, nullptr, nullptr, nullptr, napi_enumerable, ring},
      {"setVector", nullptr, setVector, nullptr, nullptr, nullptr, napi_enumerable, ring},
      {"close", nullptr, closeRing, nullptr, nullptr, nullptr, napi_enumerable, ring},
  };
  napi_define_properties(env, object, sizeof(properties) / sizeof(properties[0]), properties);
  object["usesUring"] = ring->usesUring();
  const auto finalize = [](napi_env, void* data, void*) {
    Ring* const ring = static_cast<Ring*>(data);
    ring->close();
    ring->unreference();
  };
  if (napi_wrap(env, object, ring, finalize, nullptr, nullptr) != napi_ok) {
    finalize(env, ring, nullptr);
    return env.Undefined();
  }
  return object;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  Environment::create(env);
  exportFileFacts(exports);
  exportFuse(exports);
  exportRestart(exports);
  exportDescriptor(exports);
  exportDescriptorMessage(exports);
  exportDescriptorWatch(exports);
  exportCopyOrder(exports);
  exportHoldMemory(exports);
  exportMappedMemory(exports);
  exportSectorCipher(exports);
  exportThreadAffinity(exports);
  const napi_property_descriptor properties[] = {
      {"addressOf", nullptr, addressOf, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"isZero", nullptr, isZeroView, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"zeroRuns", nullptr, zeroRunsOfView, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"setWordAtEnd", nullptr, setWordAtEnd, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"keepWord", nullptr, keepWord, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof(properties) / sizeof(properties[0]), properties);
  exports["createRing"] = Napi::Function::New(env, createRing, "createRing");
  exports["hasZlib"] = zlibAvailable();
  return exports;
}

}  // namespace

}  // namespace cowherd

using cowherd::initialize;
NODE_API_MODULE(cowherd, initialize)
