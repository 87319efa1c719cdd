#include "mapped-memory.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace cowherd {

namespace {

/** Stretches of memory at a time, in all threads. */
constexpr size_t kMostMappings = 8192;

/** A stretch that is mapped. Read by the signal's handler, which must not lock anything. */
struct Mapping {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<uint32_t> lostPages{0};
};

Mapping mappings[kMostMappings];
/** Entries that were ever used. */
std::atomic<size_t> usedMappings{0};
std::atomic<uint32_t> lostPagesInAll{0};
/** Guards adding and removing. */
std::mutex mappingLock;
struct sigaction formerAction;
bool isHandling = false;

Mapping* mappingAt(uintptr_t address) {
  const size_t used = usedMappings.load(std::memory_order_acquire);
  for (size_t index = 0; index < used; index += 1) {
    const uintptr_t begin = mappings[index].begin.load(std::memory_order_acquire);
    if (begin != 0 && address >= begin && address < mappings[index].end.load()) {
      return &mappings[index];
    }
  }
  return nullptr;
}

/** Puts a page of our own where one was taken away. */
void onBusError(int signal, siginfo_t* facts, void* context) {
  const int error = errno;
  const uintptr_t address = reinterpret_cast<uintptr_t>(facts->si_addr);
  Mapping* const mapping = mappingAt(address);
  const uintptr_t page = address & ~(static_cast<uintptr_t>(::getpagesize()) - 1);
  if (mapping != nullptr &&
      ::mmap(reinterpret_cast<void*>(page), static_cast<size_t>(::getpagesize()),
             PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != MAP_FAILED) {
    mapping->lostPages.fetch_add(1);
    lostPagesInAll.fetch_add(1);
    errno = error;
    return;
  }
  // Not ours: it happens again, and whoever handled it before does so.
  ::sigaction(signal, &formerAction, nullptr);
  errno = error;
}

/** @returns null if there are too many */
Mapping* addMapping(void* begin, size_t length) {
  const std::lock_guard<std::mutex> guard(mappingLock);
  if (!isHandling) {
    struct sigaction action = {};
    action.sa_sigaction = onBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    if (::sigaction(SIGBUS, &action, &formerAction) != 0) return nullptr;
    isHandling = true;
  }
  const size_t used = usedMappings.load();
  size_t index = 0;
  while (index < used && mappings[index].begin.load() != 0) index += 1;
  if (index == kMostMappings) return nullptr;
  Mapping* const mapping = &mappings[index];
  mapping->lostPages.store(0);
  mapping->end.store(reinterpret_cast<uintptr_t>(begin) + length);
  mapping->begin.store(reinterpret_cast<uintptr_t>(begin), std::memory_order_release);
  if (index == used) usedMappings.store(used + 1, std::memory_order_release);
  return mapping;
}

void unmap(napi_env, void* begin, void* hint) {
  Mapping* const mapping = static_cast<Mapping*>(hint);
  const std::lock_guard<std::mutex> guard(mappingLock);
  const size_t length = mapping->end.load() - mapping->begin.load();
  // First: another thread may be given the same addresses.
  mapping->begin.store(0, std::memory_order_release);
  ::munmap(begin, length);
}

/** (descriptor, offset, length) => ArrayBuffer | -errno. The descriptor stays the caller's. */
napi_value mapMemory(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3] = {};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  int32_t descriptor = -1;
  double offset = 0;
  double length = 0;
  napi_get_value_int32(env, arguments[0], &descriptor);
  napi_get_value_double(env, arguments[1], &offset);
  napi_get_value_double(env, arguments[2], &length);
  const size_t bytes = static_cast<size_t>(length);
  napi_value result = nullptr;
  void* const begin = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                             descriptor, static_cast<off_t>(offset));
  if (begin == MAP_FAILED) {
    napi_create_int32(env, -errno, &result);
    return result;
  }
  Mapping* const mapping = addMapping(begin, bytes);
  if (mapping == nullptr) {
    ::munmap(begin, bytes);
    napi_create_int32(env, -ENOMEM, &result);
    return result;
  }
  if (napi_create_external_arraybuffer(env, begin, bytes, unmap, mapping, &result) != napi_ok) {
    unmap(env, begin, mapping);
    napi_create_int32(env, -ENOMEM, &result);
  }
  return result;
}

/** (bytes) => descriptor of memory that other programs can share, all zeroes | -errno */
napi_value createMemory(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double length = 0;
  napi_get_value_double(env, argument, &length);
  int descriptor = ::memfd_create("cowherd", MFD_CLOEXEC);
  if (descriptor >= 0 && ::ftruncate(descriptor, static_cast<off_t>(length)) != 0) {
    const int error = errno;
    ::close(descriptor);
    errno = error;
    descriptor = -1;
  }
  napi_value result = nullptr;
  napi_create_int32(env, descriptor >= 0 ? descriptor : -errno, &result);
  return result;
}

/** () => pages of all mappings of the process that were taken away, and touched after that */
napi_value lostPages(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_uint32(env, lostPagesInAll.load(std::memory_order_relaxed), &result);
  return result;
}

/** (arrayBuffer of `mapMemory`) => whether no page of it was */
napi_value isMemoryWhole(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  void* begin = nullptr;
  size_t length = 0;
  napi_get_arraybuffer_info(env, argument, &begin, &length);
  const Mapping* const mapping = mappingAt(reinterpret_cast<uintptr_t>(begin));
  napi_value result = nullptr;
  napi_get_boolean(env, mapping != nullptr && mapping->lostPages.load() == 0, &result);
  return result;
}

}  // namespace

void exportMappedMemory(Napi::Object exports) {
  const napi_property_descriptor properties[] = {
      {"mapMemory", nullptr, mapMemory, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"createMemory", nullptr, createMemory, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"lostPages", nullptr, lostPages, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"isMemoryWhole", nullptr, isMemoryWhole, nullptr, nullptr, nullptr, napi_enumerable,
       nullptr},
  };
  napi_define_properties(exports.Env(), exports, sizeof(properties) / sizeof(properties[0]),
                         properties);
}

}  // namespace cowherd
