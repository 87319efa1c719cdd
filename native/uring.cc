#include "uring.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace cowherd {

namespace {

// Newer than the headers we must build with; kernels that know them not refuse with EINVAL.
constexpr unsigned kSetupCompletionSize = 1U << 3;
constexpr unsigned kSetupCooperative = 1U << 8;

int setup(unsigned entries, io_uring_params* parameters) {
  return static_cast<int>(::syscall(SYS_io_uring_setup, entries, parameters));
}

}  // namespace

std::unique_ptr<Uring> Uring::create(unsigned entries, unsigned completions, int* error) {
  std::unique_ptr<Uring> ring(new Uring());
  io_uring_params parameters;
  // Completion work that waits for our next system call spares interrupting the JavaScript thread.
  // (Deferring it wholly, to IORING_ENTER_GETEVENTS, was no faster, and polling the ring's own
  // descriptor then lost wake-ups on Linux 6.18.)
  for (const unsigned flags : {kSetupCooperative, 0U}) {
    std::memset(&parameters, 0, sizeof(parameters));
    parameters.flags = kSetupCompletionSize | flags;
    parameters.cq_entries = completions;
    ring->descriptor_ = setup(entries, &parameters);
    if (ring->descriptor_ >= 0 || errno != EINVAL) break;
  }
  if (ring->descriptor_ < 0) {
    *error = -errno;
    return nullptr;
  }
  constexpr unsigned kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
  if ((parameters.features & kNeeded) != kNeeded) {
    *error = -ENOSYS;
    return nullptr;
  }

  ring->ringLength_ =
      std::max<size_t>(parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned),
                       parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe));
  void* memory = ::mmap(nullptr, ring->ringLength_, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, ring->descriptor_, IORING_OFF_SQ_RING);
  if (memory == MAP_FAILED) {
    *error = -errno;
    return nullptr;
  }
  ring->ringMemory_ = memory;
  ring->entryLength_ = parameters.sq_entries * sizeof(io_uring_sqe);
  void* entryMemory = ::mmap(nullptr, ring->entryLength_, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_POPULATE, ring->descriptor_, IORING_OFF_SQES);
  if (entryMemory == MAP_FAILED) {
    *error = -errno;
    return nullptr;
  }
  ring->entryMemory_ = entryMemory;

  char* const base = static_cast<char*>(memory);
  const auto at = [base](unsigned offset) { return reinterpret_cast<unsigned*>(base + offset); };
  ring->submissionHead_ = at(parameters.sq_off.head);
  ring->submissionTail_ = at(parameters.sq_off.tail);
  ring->submissionMask_ = *at(parameters.sq_off.ring_mask);
  ring->submissionEntries_ = parameters.sq_entries;
  ring->submissions_ = static_cast<io_uring_sqe*>(entryMemory);
  ring->completionHead_ = at(parameters.cq_off.head);
  ring->completionTail_ = at(parameters.cq_off.tail);
  ring->completionMask_ = *at(parameters.cq_off.ring_mask);
  ring->completions_ = reinterpret_cast<io_uring_cqe*>(base + parameters.cq_off.cqes);
  // Entries are used in ring order, so the indirection array never changes.
  unsigned* const array = at(parameters.sq_off.array);
  for (unsigned index = 0; index < parameters.sq_entries; index += 1) array[index] = index;
  ring->localTail_ = *ring->submissionTail_;
  return ring;
}

Uring::~Uring() {
  if (entryMemory_ != nullptr) ::munmap(entryMemory_, entryLength_);
  if (ringMemory_ != nullptr) ::munmap(ringMemory_, ringLength_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

io_uring_sqe* Uring::prepare() {
  if (localTail_ - __atomic_load_n(submissionHead_, __ATOMIC_ACQUIRE) == submissionEntries_) {
    return nullptr;
  }
  io_uring_sqe* const entry = &submissions_[localTail_ & submissionMask_];
  std::memset(entry, 0, sizeof(*entry));
  localTail_ += 1;
  prepared_ += 1;
  return entry;
}

int Uring::submit(unsigned wait) {
  __atomic_store_n(submissionTail_, localTail_, __ATOMIC_RELEASE);
  const unsigned flags = wait > 0 ? IORING_ENTER_GETEVENTS : 0;
  if (prepared_ == 0 && flags == 0) return 0;
  do {
    const long submitted =
        ::syscall(SYS_io_uring_enter, descriptor_, prepared_, wait, flags, nullptr, 0);
    if (submitted < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    prepared_ -= static_cast<unsigned>(submitted);
  } while (prepared_ > 0);
  return 0;
}

}  // namespace cowherd
