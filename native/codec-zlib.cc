#include <dlfcn.h>
#include <errno.h>
#include <zlib.h>

#include <limits>
#include <string>

#include "codec.h"

namespace cowherd {

namespace {

constexpr int kWriteWindowBits = -12;
constexpr int kReadWindowBits = -15;
/** The same, in the wrapping of RFC 1950. */
constexpr int kWrappedWindowBits = 15;
constexpr int kMemoryLevel = 9;

/** zlib as the node executable carries it, found when first needed. */
struct Zlib {
  int (*initializeDeflate)(z_streamp, int, int, int, int, int, const char*, int);
  int (*deflateReset)(z_streamp);
  int (*deflate)(z_streamp, int);
  int (*deflateEnd)(z_streamp);
  int (*initializeInflate)(z_streamp, int, const char*, int);
  int (*inflateReset)(z_streamp);
  int (*inflate)(z_streamp, int);
  int (*inflateEnd)(z_streamp);
  bool complete;

  template <typename Function>
  static bool find(Function* function, const char* prefix, const char* name) {
    void* const symbol = ::dlsym(RTLD_DEFAULT, (std::string(prefix) + name).c_str());
    *function = reinterpret_cast<Function>(symbol);
    return symbol != nullptr;
  }

  bool findAll(const char* prefix) {
    return find(&initializeDeflate, prefix, "deflateInit2_") &&
           find(&deflateReset, prefix, "deflateReset") && find(&deflate, prefix, "deflate") &&
           find(&deflateEnd, prefix, "deflateEnd") &&
           find(&initializeInflate, prefix, "inflateInit2_") &&
           find(&inflateReset, prefix, "inflateReset") && find(&inflate, prefix, "inflate") &&
           find(&inflateEnd, prefix, "inflateEnd");
  }

  // The plain names are the copy that node:zlib itself uses, three times as quick in Node 20 as
  // the one with Chromium's prefix beside it.
  Zlib() : complete(findAll("") || findAll("Cr_z_")) {}
};

const Zlib& zlib() {
  static const Zlib library;
  return library;
}

/** A thread's compressor, set up anew only when another level is asked for. */
struct Compressor {
  z_stream stream = {};
  int level = std::numeric_limits<int>::min();
  bool ready = false;

  bool prepare(int wantedLevel) {
    if (ready && level == wantedLevel) return zlib().deflateReset(&stream) == Z_OK;
    if (ready) zlib().deflateEnd(&stream);
    stream = {};
    ready = zlib().initializeDeflate(&stream, wantedLevel, Z_DEFLATED, kWriteWindowBits, kMemoryLevel,
                                Z_DEFAULT_STRATEGY, ZLIB_VERSION, sizeof(z_stream)) == Z_OK;
    level = wantedLevel;
    return ready;
  }
  ~Compressor() {
    if (ready) zlib().deflateEnd(&stream);
  }
};

struct Decompressor {
  z_stream stream = {};
  bool ready = false;

  bool prepare(int windowBits) {
    if (ready) return zlib().inflateReset(&stream) == Z_OK;
    ready = zlib().initializeInflate(&stream, windowBits, ZLIB_VERSION, sizeof(z_stream)) == Z_OK;
    return ready;
  }
  ~Decompressor() {
    if (ready) zlib().inflateEnd(&stream);
  }
};

bool tooLong(size_t length, size_t capacity) {
  return length > std::numeric_limits<uInt>::max() || capacity > std::numeric_limits<uInt>::max();
}

void lend(z_stream* stream, const char* input, size_t length, char* output, size_t capacity) {
  stream->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input));
  stream->avail_in = static_cast<uInt>(length);
  stream->next_out = reinterpret_cast<Bytef*>(output);
  stream->avail_out = static_cast<uInt>(capacity);
}

}  // namespace

bool zlibAvailable() { return zlib().complete; }

int64_t deflateRaw(const char* input, size_t length, char* output, size_t capacity, int level) {
  static thread_local Compressor compressor;
  if (!zlibAvailable()) return -ENOSYS;
  if (tooLong(length, capacity)) return -EINVAL;
  if (!compressor.prepare(level)) return -ENOMEM;
  lend(&compressor.stream, input, length, output, capacity);
  if (zlib().deflate(&compressor.stream, Z_FINISH) != Z_STREAM_END) return -ENOSPC;
  return static_cast<int64_t>(capacity - compressor.stream.avail_out);
}

int64_t inflateRaw(const char* input, size_t length, char* output, size_t capacity) {
  static thread_local Decompressor decompressor;
  if (!zlibAvailable()) return -ENOSYS;
  if (tooLong(length, capacity)) return -EINVAL;
  if (!decompressor.prepare(kReadWindowBits)) return -ENOMEM;
  lend(&decompressor.stream, input, length, output, capacity);
  const int status = zlib().inflate(&decompressor.stream, Z_FINISH);
  const bool full = decompressor.stream.avail_out == 0;
  if (!full || (status != Z_STREAM_END && status != Z_BUF_ERROR && status != Z_OK)) return -EINVAL;
  return static_cast<int64_t>(capacity);
}

int64_t inflateZlib(const char* input, size_t length, char* output, size_t capacity) {
  static thread_local Decompressor decompressor;
  if (!zlibAvailable()) return -ENOSYS;
  if (tooLong(length, capacity)) return -EINVAL;
  if (!decompressor.prepare(kWrappedWindowBits)) return -ENOMEM;
  lend(&decompressor.stream, input, length, output, capacity);
  const int status = zlib().inflate(&decompressor.stream, Z_FINISH);
  // Only at the stream's end has the checksum been looked at.
  if (status != Z_STREAM_END || decompressor.stream.avail_out != 0) return -EINVAL;
  return static_cast<int64_t>(capacity);
}

}  // namespace cowherd
