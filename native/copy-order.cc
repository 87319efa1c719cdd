#include "copy-order.h"

#include <algorithm>
#include <thread>

#include "request.h"

namespace cowherd {

namespace {

using Owner = std::shared_ptr<CopyOrder>;

/** Copies that may have read before their turn, beside those of threads that wait. */
constexpr size_t kMostKept = 4;
/** Copies after which it is judged whether they wait for what they read. */
constexpr size_t kNotedCopies = 64;

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

/** (granule, isShared | undefined) => order */
napi_value createCopyOrder(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2] = {};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  double granule = 0;
  napi_get_value_double(env, arguments[0], &granule);
  // On two processors, JavaScript needs the one that is not copying.
  bool isShared = std::thread::hardware_concurrency() > 2;
  napi_get_value_bool(env, arguments[1], &isShared);
  napi_value object = nullptr;
  if (napi_create_object(env, &object) != napi_ok) return nullptr;
  const napi_property_descriptor property = {
      "offer", nullptr, offer, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, object, 1, &property);
  Owner* const owner =
      new Owner(std::make_shared<CopyOrder>(static_cast<uint64_t>(granule), !isShared));
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

bool CopyOrder::begin(Request* request) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t ticket = request->ticket;
  if (turn_ != ticket && kept_.size() >= kMostKept) {
    waiting_ += 1;
    fewerKept_.wait(lock, [&] { return turn_ == ticket || kept_.size() <= kMostKept / 2; });
    waiting_ -= 1;
  }
  if (turn_ == ticket) return true;
  kept_[ticket] = request;
  return false;
}

Request* CopyOrder::leave(uint64_t ticket) {
  std::lock_guard<std::mutex> lock(mutex_);
  left_.insert(ticket);
  while (left_.erase(turn_) > 0) turn_ += 1;
  Request* next = nullptr;
  const auto found = kept_.find(turn_);
  if (found != kept_.end()) {
    next = found->second;
    kept_.erase(found);
  }
  if (waiting_ > 0 && (next == nullptr || kept_.size() <= kMostKept / 2)) fewerKept_.notify_all();
  return next;
}

void CopyOrder::note(std::chrono::nanoseconds reading, std::chrono::nanoseconds writing) {
  std::lock_guard<std::mutex> lock(mutex_);
  reading_ += reading;
  writing_ += writing;
  noted_ += 1;
  if (noted_ < kNotedCopies) return;
  if (reading_ > writing_) isBestAlone_.store(false, std::memory_order_relaxed);
  reading_ /= 2;
  writing_ /= 2;
  noted_ /= 2;
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
