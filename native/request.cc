#include "request.h"

#include <limits.h>

#include <algorithm>
#include <cstring>

#include "copy-order.h"

namespace cowherd {

int Request::bufferCount() const {
  if (!isVector()) return 1;
  return static_cast<int>(std::min<size_t>(vector.size() - vectorIndex, IOV_MAX));
}

void Request::advance(uint64_t count) {
  offset += count;
  remaining -= count;
  transferred += count;
  if (!isVector()) {
    single.iov_base = static_cast<char*>(single.iov_base) + count;
    single.iov_len -= count;
    return;
  }
  while (count > 0) {
    iovec& first = vector[vectorIndex];
    const uint64_t part = std::min<uint64_t>(count, first.iov_len);
    first.iov_base = static_cast<char*>(first.iov_base) + part;
    first.iov_len -= part;
    count -= part;
    if (first.iov_len == 0) vectorIndex += 1;
  }
}

Request* Request::leaveOrder(Request* list) {
  copied.reset();
  Request* const following = order != nullptr ? order->leave(ticket) : nullptr;
  order.reset();
  if (following == nullptr) return list;
  following->next = list;
  return following;
}

Request* Request::ended() {
  Request* const all = whole;
  if (all == nullptr) return this;
  SharedWork* const work = all->work.get();
  int64_t none = 0;
  if (result != 0) work->result.compare_exchange_strong(none, result);
  if (work->left.fetch_sub(1) > 1) return nullptr;
  all->result = work->result.load();
  return all;
}

void Request::zeroRest() {
  while (remaining > 0) {
    const iovec first = *buffers();
    std::memset(first.iov_base, 0, first.iov_len);
    advance(first.iov_len);
  }
}

bool Request::aligned(uint32_t requestAlignment, uint32_t memoryAlignment) const {
  if (((offset | remaining) & (requestAlignment - 1)) != 0) return false;
  const iovec* first = buffers();
  const size_t count = isVector() ? vector.size() - vectorIndex : 1;
  for (size_t index = 0; index < count; index += 1) {
    if ((reinterpret_cast<uintptr_t>(first[index].iov_base) & (memoryAlignment - 1)) != 0 ||
        (first[index].iov_len & (requestAlignment - 1)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace cowherd
