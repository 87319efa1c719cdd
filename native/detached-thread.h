#ifndef COWHERD_DETACHED_THREAD_H
#define COWHERD_DETACHED_THREAD_H

namespace cowherd {

/**
 * Runs `run(argument)` on a thread that nobody waits for and that receives no signal: those belong
 * to the program's threads. @returns false if the system has no thread for us
 */
bool startDetachedThread(void* (*run)(void*), void* argument);

}  // namespace cowherd

#endif
