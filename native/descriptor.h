#ifndef COWHERD_DESCRIPTOR_H
#define COWHERD_DESCRIPTOR_H

#include <napi.h>

namespace cowherd {

/** Adds `duplicateDescriptor`. */
void exportDescriptor(Napi::Object exports);

}  // namespace cowherd

#endif
