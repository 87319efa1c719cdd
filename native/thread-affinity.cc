#include "thread-affinity.h"

#include <errno.h>
#include <sched.h>

namespace cowherd {

namespace {

/** (processors) => 0 | -errno; this thread runs on these alone from now on */
Napi::Value pinThread(const Napi::CallbackInfo& info) {
  Napi::Int32Array processors = info[0].As<Napi::Int32Array>();
  cpu_set_t set;
  CPU_ZERO(&set);
  for (size_t index = 0; index < processors.ElementLength(); index += 1) {
    const int processor = processors[index];
    if (processor >= 0 && processor < CPU_SETSIZE) CPU_SET(processor, &set);
  }
  const int result = ::sched_setaffinity(0, sizeof(set), &set);
  return Napi::Number::New(info.Env(), result < 0 ? -errno : 0);
}

}  // namespace

void exportThreadAffinity(Napi::Object exports) {
  exports["pinThread"] = Napi::Function::New(exports.Env(), pinThread, "pinThread");
}

}  // namespace cowherd
