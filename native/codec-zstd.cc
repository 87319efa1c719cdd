#include <errno.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <memory>

#include "codec.h"

namespace cowherd {

namespace {

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

int64_t zstdCompress(const char* input, size_t length, char* output, size_t capacity, int level) {
  static thread_local std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  if (context == nullptr) return -ENOMEM;
  const size_t written =
      ZSTD_compressCCtx(context.get(), output, capacity, input, length, level);
  if (!ZSTD_isError(written)) return static_cast<int64_t>(written);
  switch (ZSTD_getErrorCode(written)) {
    case ZSTD_error_dstSize_tooSmall:
      return -ENOSPC;
    case ZSTD_error_memory_allocation:
      return -ENOMEM;
    default:
      return -EINVAL;
  }
}

int64_t zstdDecompress(const char* input, size_t length, char* output, size_t capacity) {
  static thread_local std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  if (context == nullptr) return -ENOMEM;
  // Finding the frame's end first lets one call decode straight into the output: no window is
  // allocated, however large a hostile frame says its own to be.
  const size_t frame = ZSTD_findFrameCompressedSize(input, length);
  if (ZSTD_isError(frame)) return -EINVAL;
  const size_t written = ZSTD_decompressDCtx(context.get(), output, capacity, input, frame);
  if (ZSTD_isError(written) || written != capacity) return -EINVAL;
  return static_cast<int64_t>(written);
}

}  // namespace cowherd
