#include "fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace cowherd {

namespace {

/** FUSE_DEV_IOC_CLONE of linux/fuse.h. */
constexpr unsigned long kClone = _IOR(229, 0, uint32_t);

int openDevice() { return ::open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC); }

/** (path, options but for the descriptor, flags) => descriptor | -errno */
Napi::Value mountFuse(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const int descriptor = openDevice();
  if (descriptor < 0) return Napi::Number::New(info.Env(), -errno);
  const std::string options =
      "fd=" + std::to_string(descriptor) + "," + info[1].As<Napi::String>().Utf8Value();
  const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC |
                              (info[2].As<Napi::Boolean>().Value() ? MS_RDONLY : 0);
  if (::mount("cowherd", path.c_str(), "fuse.cowherd", flags, options.c_str()) != 0) {
    const int error = errno;
    ::close(descriptor);
    return Napi::Number::New(info.Env(), -error);
  }
  return Napi::Number::New(info.Env(), descriptor);
}

/** (descriptor) => another one for the same mount, for another thread | -errno */
Napi::Value cloneFuse(const Napi::CallbackInfo& info) {
  uint32_t original = info[0].As<Napi::Number>().Uint32Value();
  const int descriptor = openDevice();
  if (descriptor < 0) return Napi::Number::New(info.Env(), -errno);
  if (::ioctl(descriptor, kClone, &original) != 0) {
    const int error = errno;
    ::close(descriptor);
    return Napi::Number::New(info.Env(), -error);
  }
  return Napi::Number::New(info.Env(), descriptor);
}

/** (path) => 0 | -errno */
Napi::Value unmount(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const int result = ::umount2(path.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH);
  return Napi::Number::New(info.Env(), result == 0 ? 0 : -errno);
}

}  // namespace

void exportFuse(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  exports["mountFuse"] = Napi::Function::New(env, mountFuse, "mountFuse");
  exports["cloneFuse"] = Napi::Function::New(env, cloneFuse, "cloneFuse");
  exports["unmount"] = Napi::Function::New(env, unmount, "unmount");
}

}  // namespace cowherd
