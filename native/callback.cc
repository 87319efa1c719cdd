#include "callback.h"

namespace cowherd {

void Callback::open(napi_env env, napi_value function, const char* name) {
  env_ = env;
  napi_create_reference(env, function, 1, &function_);
  napi_value text = nullptr;
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_async_init(env, nullptr, text, &context_);
}

void Callback::call(const uint32_t* argument) {
  napi_handle_scope scope;
  napi_open_handle_scope(env_, &scope);
  napi_value function = nullptr;
  napi_value global = nullptr;
  napi_value number = nullptr;
  napi_get_reference_value(env_, function_, &function);
  napi_get_global(env_, &global);
  if (argument != nullptr) napi_create_uint32(env_, *argument, &number);
  napi_make_callback(env_, context_, global, function, argument == nullptr ? 0 : 1, &number,
                     nullptr);
  // The call also fails, without an exception, where the environment is being stopped.
  bool thrown = false;
  napi_value exception = nullptr;
  if (napi_is_exception_pending(env_, &thrown) == napi_ok && thrown &&
      napi_get_and_clear_last_exception(env_, &exception) == napi_ok) {
    napi_fatal_exception(env_, exception);
  }
  napi_close_handle_scope(env_, scope);
}

void Callback::close() {
  napi_delete_reference(env_, function_);
  napi_async_destroy(env_, context_);
}

}  // namespace cowherd
