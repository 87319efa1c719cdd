#ifndef COWHERD_CODEC_H
#define COWHERD_CODEC_H

#include <cstddef>
#include <cstdint>

/**
 * Compression of single clusters, on the calling thread with a context that the thread keeps.
 * Results are bytes written or a negated errno: ENOSPC where the output does not hold it, EINVAL
 * for damaged input, ENOSYS where the program carries no such code, ENOMEM.
 */
namespace cowherd {

/** One zstd frame. */
int64_t zstdCompress(const char* input, size_t length, char* output, size_t capacity, int level);
/** The frame at the start of the input, which may have padding behind it, must fill the output. */
int64_t zstdDecompress(const char* input, size_t length, char* output, size_t capacity);

/** Whether this program carries zlib for us to use. */
bool zlibAvailable();
/** A raw deflate stream with a 4 KiB window, as QEMU writes it. */
int64_t deflateRaw(const char* input, size_t length, char* output, size_t capacity, int level);
/** A raw deflate stream with any window; it must fill the output, and padding may follow it. */
int64_t inflateRaw(const char* input, size_t length, char* output, size_t capacity);
/** A zlib stream (RFC 1950), whose checksum is verified; the rest is as for `inflateRaw`. */
int64_t inflateZlib(const char* input, size_t length, char* output, size_t capacity);

}  // namespace cowherd

#endif
