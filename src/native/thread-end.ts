/** Telling the other threads of a program that this one has ended in the middle of something. */
import { addon } from './addon.js';

/**
 * Has a shared word set when this thread ends, however it ends, unless that is taken back before.
 * Without the addon a thread that is terminated from outside sets nothing.
 *
 * @returns takes it back
 */
export function setWordAtThreadEnd(words: Int32Array, index: number, value: number): () => void {
  if (addon !== undefined) return keeping(addon.setWordAtEnd(words, index, value));
  const set = (): void => {
    Atomics.store(words, index, value);
  };
  process.on('exit', set);
  return () => {
    process.off('exit', set);
  };
}

/**
 * Joins the members of something shared, unless nobody is left, and has a word set when this thread
 * ends, as one step: a thread that dies before it has not joined, one that dies after it is noticed.
 *
 * @param members a count in its first word
 * @param join raises the count unless it is zero; used where the addon cannot do it
 * @returns takes the word back, or undefined if nobody was left
 */
export function joinUntilThreadEnd(
  members: Int32Array,
  join: () => boolean,
  words: Int32Array,
  index: number,
  value: number,
): (() => void) | undefined {
  if (addon === undefined) return join() ? setWordAtThreadEnd(words, index, value) : undefined;
  const note = addon.setWordAtEnd(words, index, value, members);
  return note === 0 ? undefined : keeping(note);
}

function keeping(note: number): () => void {
  return () => {
    addon?.keepWord(note);
  };
}
