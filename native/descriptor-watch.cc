#include "descriptor-watch.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>

#include "environment.h"

namespace cowherd {

DescriptorWatch* DescriptorWatch::create(napi_env env, Environment* environment, int descriptor,
                                         bool isEvent, napi_value onReadable, int* error) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    *error = -EINVAL;
    return nullptr;
  }
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    *error = -errno;
    return nullptr;
  }
  DescriptorWatch* const watch = new DescriptorWatch();
  watch->poll_.data = watch;
  // A file that cannot be waited for is refused here.
  *error = uv_poll_init(loop, &watch->poll_, copy);
  if (*error != 0) {
    ::close(copy);
    delete watch;
    return nullptr;
  }
  watch->environment_ = environment;
  watch->descriptor_ = copy;
  watch->isEvent_ = isEvent;
  watch->callback_.open(env, onReadable, "cowherd.watch");
  uv_poll_start(&watch->poll_, UV_READABLE | UV_DISCONNECT, [](uv_poll_t* handle, int, int) {
    static_cast<DescriptorWatch*>(handle->data)->onReadable();
  });
  watch->references_ += 1;
  environment->add(watch);
  return watch;
}

void DescriptorWatch::onReadable() {
  if (closed_) return;
  if (isEvent_) {
    uint64_t count;
    const ssize_t bytes = ::read(descriptor_, &count, sizeof(count));
    // Somebody else may have taken it.
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
    // What has ended, or never was one, would wake the loop for ever.
    if (bytes != sizeof(count)) uv_poll_stop(&poll_);
  }
  callback_.call();
}

void DescriptorWatch::close() {
  if (closed_) return;
  closed_ = true;
  environment_->remove(this);
  callback_.close();
  environment_->handleClosing();
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    DescriptorWatch* const watch = static_cast<DescriptorWatch*>(handle->data);
    Environment* const environment = watch->environment_;
    ::close(watch->descriptor_);
    watch->unreference();
    environment->handleClosed();
  });
}

void DescriptorWatch::unreference() {
  references_ -= 1;
  if (references_ == 0) delete this;
}

namespace {

napi_value closeWatch(napi_env env, napi_callback_info info) {
  size_t count = 0;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, nullptr, nullptr, &data);
  static_cast<DescriptorWatch*>(data)->close();
  return nullptr;
}

/** (descriptor, isEvent, onReadable) => watch | -errno */
Napi::Value watchDescriptor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  void* environment = nullptr;
  napi_get_instance_data(env, &environment);
  int error = 0;
  DescriptorWatch* const watch = DescriptorWatch::create(
      env, static_cast<Environment*>(environment), info[0].As<Napi::Number>().Int32Value(),
      info[1].As<Napi::Boolean>().Value(), info[2], &error);
  if (watch == nullptr) return Napi::Number::New(env, error);
  Napi::Object object = Napi::Object::New(env);
  const napi_property_descriptor close = {
      "close", nullptr, closeWatch, nullptr, nullptr, nullptr, napi_enumerable, watch};
  napi_define_properties(env, object, 1, &close);
  const auto finalize = [](napi_env, void* data, void*) {
    DescriptorWatch* const watch = static_cast<DescriptorWatch*>(data);
    watch->close();
    watch->unreference();
  };
  if (napi_wrap(env, object, watch, finalize, nullptr, nullptr) != napi_ok) {
    finalize(env, watch, nullptr);
    return env.Undefined();
  }
  return object;
}

/** (descriptor) => 0 | -errno */
napi_value signalEvent(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  int32_t descriptor = -1;
  napi_get_value_int32(env, argument, &descriptor);
  const uint64_t one = 1;
  const bool isDone = ::write(descriptor, &one, sizeof(one)) == sizeof(one);
  napi_value result = nullptr;
  napi_create_int32(env, isDone ? 0 : -errno, &result);
  return result;
}

}  // namespace

void exportDescriptorWatch(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  exports["watchDescriptor"] = Napi::Function::New(env, watchDescriptor, "watchDescriptor");
  const napi_property_descriptor signal = {
      "signalEvent", nullptr, signalEvent, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &signal);
}

}  // namespace cowherd
