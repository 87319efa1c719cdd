/** Telling the other threads of a program that this one has ended in the middle of something. */
import { addon } from './addon.js';

/**
 * Has a shared word set when this thread ends, however it ends, unless that is taken back before.
 * Without the addon a thread that is terminated from outside sets nothing.
 *
 * @returns takes it back
 */
export function setWordAtThreadEnd(words: Int32Array, index: number, value: number): () => void {
  if (addon !== undefined) {
    const note = addon.setWordAtEnd(words, index, value);
    return () => {
      addon?.keepWord(note);
    };
  }
  const set = (): void => {
    Atomics.store(words, index, value);
  };
  process.on('exit', set);
  return () => {
    process.off('exit', set);
  };
}
