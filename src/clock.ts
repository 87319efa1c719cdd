/** A clock that all threads of a process share. Nothing here may import another layer. */

/** Milliseconds since some moment that is the same for all threads. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + Math.floor(nanoseconds / 1e6);
}
