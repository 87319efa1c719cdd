#ifndef COWHERD_FILE_H
#define COWHERD_FILE_H

#include <atomic>
#include <cstdint>

#include "write-gate.h"

namespace cowherd {

/**
 * An open descriptor, shared by every queue of the process that uses it and closed by the last.
 * Files are named to JavaScript by an identifier that is never reused, so a stale one finds nothing.
 */
class File {
 public:
  /** Takes the descriptor over, holding one reference. @returns null when the table is full */
  static File* adopt(int descriptor);
  /** @returns the file, or null if no file has this identifier; takes no reference */
  static File* find(double identifier);

  /** Another reference, for another holder. @returns false if the file is closing */
  static bool retain(double identifier);
  /** Drops a reference; the last closes. @returns 0, or the negated errno of close(2) */
  int release();

  double identifier() const { return identifier_; }
  int descriptor() const { return descriptor_; }

  /** O_DIRECT is on: requests must be aligned. */
  bool direct = false;
  /** Operations other than writes must be made durable too (O_DSYNC covers the writes). */
  bool durable = false;
  bool blockDevice = false;
  /** Behave as if the file system knew no fallocate(2), to test what happens then. */
  bool refusesFallocate = false;
  /** Alignment in bytes of offsets and lengths, and of addresses; 1 without O_DIRECT. */
  uint32_t requestAlignment = 1;
  uint32_t memoryAlignment = 1;
  /** The file system refused RWF_NOWAIT, so trying again is a waste. */
  std::atomic<bool> refusesNowait{false};
  WriteGate gate;

 private:
  File(int descriptor, double identifier) : descriptor_(descriptor), identifier_(identifier) {}

  const int descriptor_;
  const double identifier_;
  int references_ = 1;
};

}  // namespace cowherd

#endif
