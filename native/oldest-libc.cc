/**
 * Keeps the addon loadable wherever Node 20 is, which is from glibc 2.28 on. Functions to which newer
 * ones have given another version, without a change that matters here, are asked for by the old one.
 * The linker leads all references to them here (--wrap in binding.gyp), those of the C++ library that
 * is linked in too. With another C library they are what they are.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#if defined(__GLIBC__) && defined(__x86_64__)
#define COWHERD_OLDEST "GLIBC_2.2.5"
#elif defined(__GLIBC__) && defined(__aarch64__)
#define COWHERD_OLDEST "GLIBC_2.17"
#endif

#ifdef COWHERD_OLDEST
#define COWHERD_ORIGINAL(name) original_##name
#define COWHERD_DECLARE(result, name, parameters)                       \
  __asm__(".symver original_" #name ", " #name "@" COWHERD_OLDEST); \
  result original_##name parameters;
#else
#define COWHERD_ORIGINAL(name) __real_##name
#define COWHERD_DECLARE(result, name, parameters) result __real_##name parameters;
#endif

extern "C" {

COWHERD_DECLARE(int, pthread_create, (pthread_t*, const pthread_attr_t*, void* (*)(void*), void*))
COWHERD_DECLARE(int, pthread_detach, (pthread_t))
COWHERD_DECLARE(int, pthread_once, (pthread_once_t*, void (*)(void)))
COWHERD_DECLARE(int, __pthread_key_create, (pthread_key_t*, void (*)(void*)))
COWHERD_DECLARE(int, pthread_sigmask, (int, const sigset_t*, sigset_t*))
COWHERD_DECLARE(void*, dlsym, (void*, const char*))

int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                          void* (*run)(void*), void* argument) {
  return COWHERD_ORIGINAL(pthread_create)(thread, attributes, run, argument);
}

int __wrap_pthread_detach(pthread_t thread) { return COWHERD_ORIGINAL(pthread_detach)(thread); }

int __wrap_pthread_once(pthread_once_t* control, void (*run)(void)) {
  return COWHERD_ORIGINAL(pthread_once)(control, run);
}

int __wrap___pthread_key_create(pthread_key_t* key, void (*destroy)(void*)) {
  return COWHERD_ORIGINAL(__pthread_key_create)(key, destroy);
}

int __wrap_pthread_sigmask(int how, const sigset_t* set, sigset_t* before) {
  return COWHERD_ORIGINAL(pthread_sigmask)(how, set, before);
}

void* __wrap_dlsym(void* handle, const char* name) {
  return COWHERD_ORIGINAL(dlsym)(handle, name);
}

#ifdef COWHERD_OLDEST

/** What fstat(2) was before glibc 2.33, with the layout of its result. */
int __fxstat64(int layout, int descriptor, struct stat64* facts);

int __wrap_fstat64(int descriptor, struct stat64* facts) {
#if defined(__x86_64__)
  constexpr int layout = 1;
#else
  constexpr int layout = 0;
#endif
  return __fxstat64(layout, descriptor, facts);
}

/** Whether counts of references may do without atomic steps (glibc 2.32): never, beside Node's threads. */
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

/** The unwinder's short cut (glibc 2.35); it has another way. */
struct dl_find_object;
__attribute__((visibility("hidden"))) int _dl_find_object(void*, dl_find_object*) noexcept {
  return -1;
}

#endif

}  // extern "C"
