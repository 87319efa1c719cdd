/** Disk images of macOS, which are told by their last sector. */
import type { StorageFile } from '../../storage/storage.js';
import type { Format } from '../format.js';

const sectorSize = 512;
/** What the last sector begins with: a magic number, the version and its length. */
const trailer = [0x6b6f6c79, 4, sectorSize];

/** The format. */
export const dmgFormat = {
  name: 'dmg',
  title: 'UDIF',
  recognisesFile: hasTrailer,
  load: async () => (await import('./driver.js')).dmgDriver,
} as const satisfies Format;

async function hasTrailer(file: StorageFile): Promise<boolean> {
  const size = await file.size();
  if (size < sectorSize) return false;
  const bytes = new Uint8Array(sectorSize);
  await file.read(bytes, size - sectorSize);
  const view = new DataView(bytes.buffer);
  return trailer.every((value, index) => view.getUint32(index * 4) === value);
}
