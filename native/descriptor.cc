#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace cowherd {

namespace {

/** (descriptor) => another descriptor of the same open file | -errno */
Napi::Value duplicateDescriptor(const Napi::CallbackInfo& info) {
  const int descriptor = info[0].As<Napi::Number>().Int32Value();
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  return Napi::Number::New(info.Env(), copy < 0 ? -errno : copy);
}

/** (descriptor) */
void closeDescriptor(const Napi::CallbackInfo& info) {
  ::close(info[0].As<Napi::Number>().Int32Value());
}

/** (descriptor, into) => bytes | -errno */
Napi::Value readDescriptor(const Napi::CallbackInfo& info) {
  Napi::Uint8Array into = info[1].As<Napi::Uint8Array>();
  const ssize_t count =
      ::read(info[0].As<Napi::Number>().Int32Value(), into.Data(), into.ByteLength());
  return Napi::Number::New(info.Env(), count < 0 ? -errno : static_cast<double>(count));
}

/** (descriptor, bytes, more?) => bytes | -errno; both in one piece */
Napi::Value writeDescriptor(const Napi::CallbackInfo& info) {
  Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  iovec parts[2] = {{bytes.Data(), bytes.ByteLength()}, {nullptr, 0}};
  const bool hasMore = info.Length() > 2 && !info[2].IsUndefined();
  if (hasMore) {
    Napi::Uint8Array more = info[2].As<Napi::Uint8Array>();
    parts[1] = {more.Data(), more.ByteLength()};
  }
  const ssize_t count =
      ::writev(info[0].As<Napi::Number>().Int32Value(), parts, hasMore ? 2 : 1);
  return Napi::Number::New(info.Env(), count < 0 ? -errno : static_cast<double>(count));
}

/** (ends) => 0 | -errno; two connected Unix sockets, the second of which other programs inherit */
Napi::Value connectedSockets(const Napi::CallbackInfo& info) {
  Napi::Int32Array ends = info[0].As<Napi::Int32Array>();
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
    return Napi::Number::New(info.Env(), -errno);
  }
  ::fcntl(pair[0], F_SETFD, FD_CLOEXEC);
  ends[0] = pair[0];
  ends[1] = pair[1];
  return Napi::Number::New(info.Env(), 0);
}

/** (descriptor, by) => 0 | -errno; the first stands for the same open file as the second from now on */
Napi::Value replaceDescriptor(const Napi::CallbackInfo& info) {
  const int result = ::dup2(info[1].As<Napi::Number>().Int32Value(),
                            info[0].As<Napi::Number>().Int32Value());
  return Napi::Number::New(info.Env(), result < 0 ? -errno : 0);
}

}  // namespace

void exportDescriptor(Napi::Object exports) {
  exports["duplicateDescriptor"] =
      Napi::Function::New(exports.Env(), duplicateDescriptor, "duplicateDescriptor");
  exports["replaceDescriptor"] =
      Napi::Function::New(exports.Env(), replaceDescriptor, "replaceDescriptor");
  exports["readDescriptor"] = Napi::Function::New(exports.Env(), readDescriptor, "readDescriptor");
  exports["writeDescriptor"] =
      Napi::Function::New(exports.Env(), writeDescriptor, "writeDescriptor");
  exports["connectedSockets"] =
      Napi::Function::New(exports.Env(), connectedSockets, "connectedSockets");
  exports["closeDescriptor"] =
      Napi::Function::New(exports.Env(), closeDescriptor, "closeDescriptor");
}

}  // namespace cowherd
