#include "file.h"

#include <errno.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <vector>

namespace cowherd {

namespace {

// An identifier is a place in the table plus a serial number times this. Look-ups take no lock, so
// the table is of fixed size; it is far above any limit on open descriptors in practice.
constexpr uint32_t kPlaces = 1 << 16;

std::atomic<File*> table[kPlaces];
std::mutex tableMutex;
std::vector<uint32_t> freePlaces;
uint32_t usedPlaces = 0;
uint64_t nextSerial = 1;

uint32_t placeOf(double identifier) {
  return static_cast<uint32_t>(static_cast<uint64_t>(identifier) % kPlaces);
}

}  // namespace

File* File::adopt(int descriptor) {
  std::lock_guard<std::mutex> lock(tableMutex);
  uint32_t place;
  if (!freePlaces.empty()) {
    place = freePlaces.back();
    freePlaces.pop_back();
  } else if (usedPlaces < kPlaces) {
    place = usedPlaces++;
  } else {
    return nullptr;
  }
  const double identifier = static_cast<double>(nextSerial++ * kPlaces + place);
  File* const file = new File(descriptor, identifier);
  table[place].store(file, std::memory_order_release);
  return file;
}

File* File::find(double identifier) {
  if (!(identifier >= 0)) return nullptr;
  File* const file = table[placeOf(identifier)].load(std::memory_order_acquire);
  return file != nullptr && file->identifier_ == identifier ? file : nullptr;
}

bool File::retain(double identifier) {
  std::lock_guard<std::mutex> lock(tableMutex);
  File* const file = find(identifier);
  if (file == nullptr) return false;
  file->references_ += 1;
  return true;
}

int File::release() {
  {
    std::lock_guard<std::mutex> lock(tableMutex);
    references_ -= 1;
    if (references_ > 0) return 0;
    const uint32_t place = placeOf(identifier_);
    table[place].store(nullptr, std::memory_order_release);
    freePlaces.push_back(place);
  }
  // close(2) must not be repeated after EINTR on Linux: the descriptor is gone either way.
  const int error = ::close(descriptor_) == 0 || errno == EINTR ? 0 : -errno;
  delete this;
  return error;
}

}  // namespace cowherd
