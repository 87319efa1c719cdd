#ifndef COWHERD_FUSE_H
#define COWHERD_FUSE_H

#include <napi.h>

namespace cowherd {

/** Adds `mountFuse`, `cloneFuse` and `unmount`: what of FUSE the kernel alone can do (fuse(4), mount(2)). */
void exportFuse(Napi::Object exports);

}  // namespace cowherd

#endif
