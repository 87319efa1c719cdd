#include "block-device.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cstddef>

namespace cowherd {

int64_t blockDeviceSize(int descriptor) {
  uint64_t bytes = 0;
  if (::ioctl(descriptor, BLKGETSIZE64, &bytes) != 0) return -errno;
  return static_cast<int64_t>(bytes);
}

uint32_t blockDeviceSectorSize(int descriptor) {
  int bytes = 0;
  if (::ioctl(descriptor, BLKSSZGET, &bytes) != 0 || bytes <= 0) return 0;
  return static_cast<uint32_t>(bytes);
}

int blockDeviceDiscard(int descriptor, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ::ioctl(descriptor, BLKDISCARD, range) == 0 ? 0 : -errno;
}

int blockDeviceZero(int descriptor, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ::ioctl(descriptor, BLKZEROOUT, range) == 0 ? 0 : -errno;
}

}  // namespace cowherd
