#include "restart.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace cowherd {

namespace {

/** The words this process was started with, each with a zero byte behind it; empty if not to be had. */
std::string commandLine() {
  std::string words;
  const int descriptor = ::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return words;
  char part[4096];
  for (ssize_t bytes; (bytes = ::read(descriptor, part, sizeof part)) > 0;) {
    words.append(part, static_cast<size_t>(bytes));
  }
  ::close(descriptor);
  return words;
}

/** (name, value) => -errno, if at all: starts this program anew, with a variable in its environment. */
Napi::Value restartWith(const Napi::CallbackInfo& info) {
  const std::string name = info[0].As<Napi::String>();
  const std::string value = info[1].As<Napi::String>();
  std::string words = commandLine();
  std::vector<char*> arguments;
  for (size_t at = 0; at < words.size(); at = words.find('\0', at) + 1) {
    arguments.push_back(&words[at]);
  }
  int error = ENOENT;
  if (!arguments.empty() && words.back() == '\0') {
    arguments.push_back(nullptr);
    ::setenv(name.c_str(), value.c_str(), 1);
    ::execv("/proc/self/exe", arguments.data());
    error = errno;
  }
  return Napi::Number::New(info.Env(), -error);
}

}  // namespace

void exportRestart(Napi::Object exports) {
  exports["restartWith"] =
      Napi::Function::New(exports.Env(), restartWith, "restartWith");
}

}  // namespace cowherd
