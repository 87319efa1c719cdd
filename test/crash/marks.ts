/** Reading the marks of sectors, as `fillSectors` makes them, without making anything. */
import { type Mark, sectorSize } from '../schedules/history.js';

const words = new Uint32Array(sectorSize / 4);
const bytesOfWords = new Uint8Array(words.buffer);

/** The mark of guest sector `sector`, whose bytes begin at `at`; undefined if they are none. */
export function markAt(bytes: Uint8Array, at: number, sector: number): Mark | undefined {
  bytesOfWords.set(bytes.subarray(at, at + sectorSize));
  const [mark] = words;
  const place = mark === 0 ? 0 : sector + 1;
  for (let index = 0; index < words.length; index += 2) {
    if (words[index] !== mark || words[index + 1] !== place) return undefined;
  }
  return mark;
}
