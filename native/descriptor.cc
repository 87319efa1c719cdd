#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
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

}  // namespace

void exportDescriptor(Napi::Object exports) {
  exports["duplicateDescriptor"] =
      Napi::Function::New(exports.Env(), duplicateDescriptor, "duplicateDescriptor");
  exports["closeDescriptor"] =
      Napi::Function::New(exports.Env(), closeDescriptor, "closeDescriptor");
}

}  // namespace cowherd
