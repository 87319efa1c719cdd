#include "copy-order.h"

#include <algorithm>

namespace cowherd {

namespace {

using Owner = std::shared_ptr<CopyOrder>;

constexpr napi_type_tag kTag = {0x636f776865726463, 0x6f70796f72646572};

/** (start, length, isZero) */
napi_value offer(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3] = {};
  napi_value self = nullptr;
  napi_get_cb_info(env, info, &count, arguments, &self, nullptr);
  const Owner order = copyOrderOf(env, self);
  if (order == nullptr) return nullptr;
  double start = 0;
  double length = 0;
  CopyPlace room;
  napi_get_value_double(env, arguments[0], &start);
  napi_get_value_double(env, arguments[1], &length);
  napi_get_value_bool(env, arguments[2], &room.isZero);
  room.start = static_cast<uint64_t>(start);
  room.length = static_cast<uint64_t>(length);
  order->offer(room);
  return nullptr;
}

/** (granule) => order */
napi_value createCopyOrder(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double granule = 0;
  napi_get_value_double(env, argument, &granule);
  napi_value object = nullptr;
  if (napi_create_object(env, &object) != napi_ok) return nullptr;
  const napi_property_descriptor property = {
      "offer", nullptr, offer, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, object, 1, &property);
  Owner* const owner = new Owner(std::make_shared<CopyOrder>(static_cast<uint64_t>(granule)));
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); };
  if (napi_wrap(env, object, owner, finalize, nullptr, nullptr) != napi_ok) {
    delete owner;
    return nullptr;
  }
  napi_type_tag_object(env, object, &kTag);
  return object;
}

}  // namespace

void CopyOrder::offer(const CopyPlace& room) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!room_.empty()) {
    CopyPlace& last = room_.back();
    if (last.start + last.length == room.start && last.isZero == room.isZero) {
      last.length += room.length;
      return;
    }
  }
  room_.push_back(room);
}

CopyPlace CopyOrder::take(uint64_t most) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (room_.empty()) return CopyPlace();
  CopyPlace& first = room_.front();
  CopyPlace taken = first;
  taken.length = std::min(most, first.length);
  first.start += taken.length;
  first.length -= taken.length;
  if (first.length == 0) room_.pop_front();
  return taken;
}

uint64_t CopyOrder::join() {
  std::lock_guard<std::mutex> lock(mutex_);
  return joined_++;
}

void CopyOrder::await(uint64_t ticket) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (turn_ == ticket) return;
  std::condition_variable turned;
  waiting_[ticket] = &turned;
  turned.wait(lock, [this, ticket] { return turn_ == ticket; });
  waiting_.erase(ticket);
}

void CopyOrder::leave(uint64_t ticket) {
  std::lock_guard<std::mutex> lock(mutex_);
  left_.insert(ticket);
  while (left_.erase(turn_) > 0) turn_ += 1;
  const auto next = waiting_.find(turn_);
  if (next != waiting_.end()) next->second->notify_one();
}

void exportCopyOrder(Napi::Object exports) {
  const napi_property_descriptor property = {"createCopyOrder", nullptr, createCopyOrder,
                                             nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(exports.Env(), exports, 1, &property);
}

std::shared_ptr<CopyOrder> copyOrderOf(napi_env env, napi_value object) {
  bool tagged = false;
  void* owner = nullptr;
  if (napi_check_object_type_tag(env, object, &kTag, &tagged) != napi_ok || !tagged ||
      napi_unwrap(env, object, &owner) != napi_ok) {
    napi_throw_type_error(env, nullptr, "an order of copies is expected");
    return nullptr;
  }
  return *static_cast<Owner*>(owner);
}

}  // namespace cowherd
