#ifndef COWHERD_DESCRIPTOR_MESSAGE_H
#define COWHERD_DESCRIPTOR_MESSAGE_H

#include <napi.h>

namespace cowherd {

/** Adds `receiveMessage` and `sendMessage`: bytes that bring descriptors along (unix(7), SCM_RIGHTS). */
void exportDescriptorMessage(Napi::Object exports);

}  // namespace cowherd

#endif
