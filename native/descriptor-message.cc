#include "descriptor-message.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace cowherd {

namespace {

/** Descriptors that one message brings at most; further ones are closed. */
constexpr size_t kMostDescriptors = 64;

/** Room for the descriptors of a message, aligned as the kernel wants it. */
union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int) * kMostDescriptors)];
};

/**
 * (socket, into, descriptors) => bytes | -errno. Does not wait. Descriptors that came along follow each
 * other in the third, the first of what is left over is -1; those beyond it are closed.
 */
Napi::Value receiveMessage(const Napi::CallbackInfo& info) {
  Napi::Uint8Array into = info[1].As<Napi::Uint8Array>();
  Napi::Int32Array descriptors = info[2].As<Napi::Int32Array>();
  iovec part = {into.Data(), into.ByteLength()};
  Control control;
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  ssize_t received;
  do {
    received = ::recvmsg(info[0].As<Napi::Number>().Int32Value(), &message,
                         MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return Napi::Number::New(info.Env(), -errno);
  size_t count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t length = header->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
      int descriptor;
      std::memcpy(&descriptor, CMSG_DATA(header) + at, sizeof(int));
      if (count < descriptors.ElementLength()) {
        descriptors[count] = descriptor;
        count += 1;
      } else {
        ::close(descriptor);
      }
    }
  }
  if (count < descriptors.ElementLength()) descriptors[count] = -1;
  return Napi::Number::New(info.Env(), static_cast<double>(received));
}

/** (socket, bytes, descriptors) => bytes | -errno. Does not wait; the descriptors stay the caller's. */
Napi::Value sendMessage(const Napi::CallbackInfo& info) {
  Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  Napi::Int32Array descriptors = info[2].As<Napi::Int32Array>();
  const size_t count = std::min(descriptors.ElementLength(), kMostDescriptors);
  iovec part = {bytes.Data(), bytes.ByteLength()};
  Control control;
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    std::memset(control.bytes, 0, sizeof(control.bytes));
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * count);
    std::memcpy(CMSG_DATA(header), descriptors.Data(), sizeof(int) * count);
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(info[0].As<Napi::Number>().Int32Value(), &message,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return Napi::Number::New(info.Env(), sent < 0 ? -errno : static_cast<double>(sent));
}

}  // namespace

void exportDescriptorMessage(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  exports["receiveMessage"] = Napi::Function::New(env, receiveMessage, "receiveMessage");
  exports["sendMessage"] = Napi::Function::New(env, sendMessage, "sendMessage");
}

}  // namespace cowherd
