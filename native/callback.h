#ifndef COWHERD_CALLBACK_H
#define COWHERD_CALLBACK_H

#include <node_api.h>

#include <cstddef>
#include <cstdint>

namespace cowherd {

/** What JavaScript is called back through, from the event loop. Belongs to the environment's thread. */
class Callback {
 public:
  /** @param name what tools for tracing call it */
  void open(napi_env env, napi_value function, const char* name);
  /** Calls it. What it throws is an uncaught exception of the program. */
  void call(const uint32_t* argument = nullptr);
  void close();

 private:
  napi_env env_ = nullptr;
  napi_ref function_ = nullptr;
  napi_async_context context_ = nullptr;
};

}  // namespace cowherd

#endif
