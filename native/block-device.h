#ifndef COWHERD_BLOCK_DEVICE_H
#define COWHERD_BLOCK_DEVICE_H

#include <cstdint>

namespace cowherd {

/** Length of a block device in bytes (BLKGETSIZE64), or a negated errno. */
int64_t blockDeviceSize(int descriptor);
/** Its logical block size in bytes (BLKSSZGET), or 0 where it does not tell. */
uint32_t blockDeviceSectorSize(int descriptor);
/** BLKDISCARD: 0 or a negated errno; what is read afterwards is not defined. */
int blockDeviceDiscard(int descriptor, uint64_t offset, uint64_t length);
/** BLKZEROOUT: 0 or a negated errno. */
int blockDeviceZero(int descriptor, uint64_t offset, uint64_t length);

}  // namespace cowherd

#endif
