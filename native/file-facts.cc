#include "file-facts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "aligned-buffer.h"
#include "block-device.h"
#include "environment.h"
#include "file.h"

namespace cowherd {

namespace {

/** How to open; shared with src/native/addon.ts. */
enum OpenFlag : uint32_t {
  kOpenWrite = 1,
  kOpenCreate = 2,
  kOpenDirect = 4,
  kOpenDurable = 8,
  kOpenRefuseFallocate = 16,
};

struct DirectAlignment {
  uint32_t request;
  uint32_t memory;
};

/** What statx(2) says of O_DIRECT, in fields younger than the headers we must build with. */
bool askDirectAlignment(int descriptor, DirectAlignment* alignment) {
  constexpr unsigned kDirectAlignmentMask = 0x2000;
  constexpr size_t kMemoryAlignmentAt = 0x98;
  constexpr size_t kRequestAlignmentAt = 0x9c;
  alignas(8) char facts[256] = {};
  if (::syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH, kDirectAlignmentMask, facts) != 0) {
    return false;
  }
  uint32_t mask;
  std::memcpy(&mask, facts, sizeof(mask));
  std::memcpy(&alignment->memory, facts + kMemoryAlignmentAt, sizeof(uint32_t));
  std::memcpy(&alignment->request, facts + kRequestAlignmentAt, sizeof(uint32_t));
  return (mask & kDirectAlignmentMask) != 0 && alignment->memory != 0 && alignment->request != 0;
}

DirectAlignment findDirectAlignment(int descriptor, bool blockDevice) {
  DirectAlignment alignment;
  if (askDirectAlignment(descriptor, &alignment)) return alignment;
  if (blockDevice) {
    const uint32_t sector = blockDeviceSectorSize(descriptor);
    if (sector != 0) return {sector, sector};
  }
  char* const bounce = bounceBuffer();
  for (const uint32_t candidate : {512U, 4096U}) {
    if (bounce != nullptr && ::pread(descriptor, bounce + candidate, candidate, 0) > 0) {
      return {candidate, candidate};
    }
  }
  return {4096, 4096};
}

Napi::Value failure(Napi::Env env, int error) { return Napi::Number::New(env, error); }

File* fileOf(const Napi::CallbackInfo& info) {
  return File::find(info[0].As<Napi::Number>().DoubleValue());
}

Environment* environmentOf(const Napi::CallbackInfo& info) {
  void* data = nullptr;
  napi_get_instance_data(info.Env(), &data);
  return static_cast<Environment*>(data);
}

/** A path, which is bytes where it is not UTF-8. */
std::string pathOf(const Napi::Value& value) {
  if (value.IsString()) return value.As<Napi::String>();
  const auto bytes = value.As<Napi::Uint8Array>();
  return std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
}

/** (path, flags, mode) => facts | -errno */
Napi::Value openFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = pathOf(info[0]);
  const uint32_t flags = info[1].As<Napi::Number>();
  const uint32_t mode = info[2].As<Napi::Number>();
  if (path.find('\0') != std::string::npos) return failure(env, -ENOENT);
  // Non-blocking, so that a pipe without a writer is refused rather than waited for.
  int openFlags = O_CLOEXEC | O_NONBLOCK | ((flags & kOpenWrite) != 0 ? O_RDWR : O_RDONLY);
  if ((flags & kOpenCreate) != 0) openFlags |= O_CREAT;
  if ((flags & kOpenDirect) != 0) openFlags |= O_DIRECT;
  if ((flags & kOpenDurable) != 0) openFlags |= O_DSYNC;
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), openFlags, mode);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) return failure(env, -errno);
  struct stat facts;
  if (::fstat(descriptor, &facts) != 0) {
    const int error = -errno;
    ::close(descriptor);
    return failure(env, error);
  }
  const bool blockDevice = S_ISBLK(facts.st_mode);
  if (!blockDevice && !S_ISREG(facts.st_mode)) {
    ::close(descriptor);
    return failure(env, S_ISDIR(facts.st_mode) ? -EISDIR : -ESPIPE);
  }
  // Left on, it would make io_uring give up on every read that has to wait.
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) & ~O_NONBLOCK);

  File* const file = File::adopt(descriptor);
  if (file == nullptr) {
    ::close(descriptor);
    return failure(env, -EMFILE);
  }
  file->blockDevice = blockDevice;
  file->durable = (flags & kOpenDurable) != 0;
  file->refusesFallocate = (flags & kOpenRefuseFallocate) != 0;
  if ((flags & kOpenDirect) != 0) {
    const DirectAlignment alignment = findDirectAlignment(descriptor, blockDevice);
    file->direct = true;
    file->requestAlignment = alignment.request;
    file->memoryAlignment = alignment.memory;
  }
  environmentOf(info)->hold(file);

  Napi::Object opened = Napi::Object::New(env);
  opened["file"] = file->identifier();
  opened["blockDevice"] = blockDevice;
  opened["requestAlignment"] = file->requestAlignment;
  opened["device"] = static_cast<double>(facts.st_dev);
  opened["inode"] = static_cast<double>(facts.st_ino);
  opened["detectsHoles"] =
      !blockDevice && (::lseek(descriptor, 0, SEEK_HOLE) >= 0 || errno == ENXIO);
  return opened;
}

/** (file) => boolean: another reference, held by this environment. */
Napi::Value retainFile(const Napi::CallbackInfo& info) {
  const double identifier = info[0].As<Napi::Number>().DoubleValue();
  const bool retained = File::retain(identifier);
  if (retained) environmentOf(info)->hold(File::find(identifier));
  return Napi::Boolean::New(info.Env(), retained);
}

/** (file) => bytes | -errno */
Napi::Value fileSize(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  if (file == nullptr) return failure(info.Env(), -EBADF);
  if (file->blockDevice) {
    return Napi::Number::New(info.Env(), static_cast<double>(blockDeviceSize(file->descriptor())));
  }
  struct stat facts;
  if (::fstat(file->descriptor(), &facts) != 0) return failure(info.Env(), -errno);
  return Napi::Number::New(info.Env(), static_cast<double>(facts.st_size));
}

/** (file) => bytes | -errno */
Napi::Value allocatedSize(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  if (file == nullptr) return failure(info.Env(), -EBADF);
  struct stat facts;
  if (::fstat(file->descriptor(), &facts) != 0) return failure(info.Env(), -errno);
  return Napi::Number::New(info.Env(), static_cast<double>(facts.st_blocks) * 512);
}

/**
 * (file, offset, startsData) => end of the run that the offset lies in, negated minus one if it is a hole;
 * 0 if nothing but a hole follows. A range whose state is unknown counts as data.
 */
Napi::Value seekRun(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  const double offset = info[1].As<Napi::Number>().DoubleValue();
  const auto answer = [&info](double value) -> Napi::Value {
    return Napi::Number::New(info.Env(), value);
  };
  constexpr double kUnknown = 9007199254740991.0;
  if (file == nullptr) return answer(kUnknown);
  const off_t from = static_cast<off_t>(offset);
  // The file position that lseek(2) moves is used by nobody.
  if (info[2].As<Napi::Boolean>()) {
    // It was where a hole ended when that was looked up: one call does, unless it has changed since.
    const off_t end = ::lseek(file->descriptor(), from, SEEK_HOLE);
    if (end > from) return answer(static_cast<double>(end));
  }
  const off_t data = ::lseek(file->descriptor(), from, SEEK_DATA);
  if (data < 0) return answer(errno == ENXIO ? 0 : kUnknown);
  if (data > from) return answer(-static_cast<double>(data) - 1);
  const off_t hole = ::lseek(file->descriptor(), from, SEEK_HOLE);
  return answer(hole < 0 ? kUnknown : static_cast<double>(hole));
}

struct flock byteLock(const Napi::CallbackInfo& info, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(info[1].As<Napi::Number>().Int64Value());
  lock.l_len = 1;
  return lock;
}

/** (file, byte, lock: boolean) => 0 | -errno: takes or drops a shared lock of the open file. */
Napi::Value lockByte(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  if (file == nullptr) return failure(info.Env(), -EBADF);
  struct flock lock = byteLock(info, info[2].As<Napi::Boolean>() ? F_RDLCK : F_UNLCK);
  const int error = ::fcntl(file->descriptor(), F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
  return Napi::Number::New(info.Env(), error);
}

/** (file, byte) => 0 if nobody else holds a lock on it, 1 if somebody does, -errno */
Napi::Value testByte(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  if (file == nullptr) return failure(info.Env(), -EBADF);
  struct flock lock = byteLock(info, F_WRLCK);
  if (::fcntl(file->descriptor(), F_OFD_GETLK, &lock) != 0) return failure(info.Env(), -errno);
  return Napi::Number::New(info.Env(), lock.l_type == F_UNLCK ? 0 : 1);
}

/**
 * (file, nocow, extentSize) => 0 | -errno of the extent size hint. Blocks without copy on write are
 * asked for as far as the file system knows them. Only a file without blocks takes hints.
 */
Napi::Value setFileHints(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  if (file == nullptr) return failure(info.Env(), -EBADF);
  if (info[1].As<Napi::Boolean>()) {
    int attributes = 0;
    if (::ioctl(file->descriptor(), FS_IOC_GETFLAGS, &attributes) == 0) {
      attributes |= FS_NOCOW_FL;
      ::ioctl(file->descriptor(), FS_IOC_SETFLAGS, &attributes);
    }
  }
  struct fsxattr facts = {};
  if (::ioctl(file->descriptor(), FS_IOC_FSGETXATTR, &facts) != 0) {
    return failure(info.Env(), -errno);
  }
  facts.fsx_xflags |= FS_XFLAG_EXTSIZE;
  facts.fsx_extsize = info[2].As<Napi::Number>().Uint32Value();
  const int result = ::ioctl(file->descriptor(), FS_IOC_FSSETXATTR, &facts);
  return Napi::Number::New(info.Env(), result == 0 ? 0 : -errno);
}

/** (file) => bytes, 0 if there is no hint */
Napi::Value extentSizeHint(const Napi::CallbackInfo& info) {
  const File* const file = fileOf(info);
  struct fsxattr facts = {};
  const bool known =
      file != nullptr && ::ioctl(file->descriptor(), FS_IOC_FSGETXATTR, &facts) == 0;
  return Napi::Number::New(info.Env(), known ? facts.fsx_extsize : 0);
}

/**
 * (from, to) => whether the one can share blocks with the other: a file system that knows it finds fault
 * with the bytes asked for, which are none of its blocks
 */
Napi::Value canClone(const Napi::CallbackInfo& info) {
  const File* const from = fileOf(info);
  const File* const to = File::find(info[1].As<Napi::Number>().DoubleValue());
  if (from == nullptr || to == nullptr) return Napi::Boolean::New(info.Env(), false);
  struct file_clone_range range = {};
  range.src_fd = from->descriptor();
  range.src_offset = 1;
  range.src_length = 1;
  range.dest_offset = 1;
  const int result = ::ioctl(to->descriptor(), FICLONERANGE, &range);
  return Napi::Boolean::New(info.Env(), result != 0 && errno == EINVAL);
}

/**
 * (descriptor, distance) => the position in bytes at which the next write(2) goes on | -errno. It is shared
 * with the other programs that write to the same open file.
 */
Napi::Value movePosition(const Napi::CallbackInfo& info) {
  const int descriptor = info[0].As<Napi::Number>().Int32Value();
  const off_t distance = static_cast<off_t>(info[1].As<Napi::Number>().Int64Value());
  const off_t position = ::lseek(descriptor, distance, SEEK_CUR);
  return Napi::Number::New(info.Env(), position < 0 ? -errno : static_cast<double>(position));
}

}  // namespace

void exportFileFacts(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  exports["openFile"] = Napi::Function::New(env, openFile, "openFile");
  exports["retainFile"] = Napi::Function::New(env, retainFile, "retainFile");
  exports["fileSize"] = Napi::Function::New(env, fileSize, "fileSize");
  exports["allocatedSize"] = Napi::Function::New(env, allocatedSize, "allocatedSize");
  exports["seekRun"] = Napi::Function::New(env, seekRun, "seekRun");
  exports["lockByte"] = Napi::Function::New(env, lockByte, "lockByte");
  exports["setFileHints"] = Napi::Function::New(env, setFileHints, "setFileHints");
  exports["extentSizeHint"] = Napi::Function::New(env, extentSizeHint, "extentSizeHint");
  exports["canClone"] = Napi::Function::New(env, canClone, "canClone");
  exports["movePosition"] = Napi::Function::New(env, movePosition, "movePosition");
  exports["testByte"] = Napi::Function::New(env, testByte, "testByte");
}

}  // namespace cowherd
