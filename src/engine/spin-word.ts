/**
 * The spinning reader-writer lock in one shared word, for memory-only critical sections.
 * Nothing may await, allocate a promise or do I/O between taking and releasing it.
 */

const writerBit = 0x40000000;
const spinsBeforeParking = 200;
const parkMs = 1;

/** Parks a while: the holder may have lost its core. */
function park(words: Int32Array, index: number, seen: number, spins: number): void {
  if (spins % spinsBeforeParking === 0) Atomics.wait(words, index, seen, parkMs);
}

/** Takes the word for reading; any number of readers may hold it. */
export function lockShared(words: Int32Array, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = Atomics.load(words, index);
    if ((seen & writerBit) === 0) {
      if (Atomics.compareExchange(words, index, seen, seen + 1) === seen) return;
    } else {
      park(words, index, seen, spins);
    }
  }
}

/** Gives back what `lockShared` took. */
export function unlockShared(words: Int32Array, index: number): void {
  Atomics.sub(words, index, 1);
}

/** Takes the word for writing; waits for every reader to leave. */
export function lockExclusive(words: Int32Array, index: number): void {
  for (let spins = 1; ; spins++) {
    const seen = Atomics.compareExchange(words, index, 0, writerBit);
    if (seen === 0) return;
    park(words, index, seen, spins);
  }
}

/** Gives back what `lockExclusive` took. */
export function unlockExclusive(words: Int32Array, index: number): void {
  Atomics.store(words, index, 0);
}
