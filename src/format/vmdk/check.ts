/** Checking a VMDK image: whether its tables and the grains that they name lie in the extents' files. */
import { CowherdError } from '../../errors.js';
import { TurnOfOthers } from '../../turn-of-others.js';
import type { CheckOptions, CheckReport } from '../check.js';
import type { ImageFiles } from '../driver.js';
import { unrepairedFormat } from '../failures.js';
import { CheckTally } from '../mapped/check-tally.js';
import type { Place } from '../mapped/mapping.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import { CompressedGrain } from './grain.js';
import { type VmdkExtent, type VmdkLayout, sectorBytes } from './layout.js';
import { VmdkMapping } from './mapping.js';

const explanations = {
  shortExtent:
    'The file of an extent ends before the extent does, as if it had been cut off: the data behind its end are lost and read as zeroes.',
  tableBeyondEnd:
    'A table lies where the file has ended: nothing says where the data of its range lie, and they read as if they had never been written.',
  grainBeyondEnd:
    'A part of the disk is said to lie where the file has ended, as if it had been cut off: that data is lost.',
  shared:
    'Two parts of the disk lie at one place: at least one of them reads as what the other holds, and writing to one changes both.',
  invalidEntry:
    'An entry of a table makes no sense: what it is about cannot be reached, and nothing behind it was looked at.',
} as const;

/** An extent that has tables. */
type TabledExtent = Extract<VmdkExtent, { readonly grainBytes: number }>;

/**
 * Checks an image; as with QEMU, the first grain in no place ends it.
 *
 * @throws ERR_COWHERD_UNSUPPORTED for a repair, which QEMU does not have either
 */
export async function checkVmdk(
  layout: VmdkLayout,
  files: ImageFiles,
  options: CheckOptions,
): Promise<CheckReport> {
  const { filename } = files[0];
  if (options.repair !== undefined) throw unrepairedFormat(filename, 'vmdk');
  const lengths = await Promise.all(files.map((file) => file.size()));
  const check = new Check(layout, files, lengths, options);
  for (const [number, extent] of layout.extents.entries()) {
    if (!(await check.extent(number, extent))) break;
  }
  return check.tally.report(filename, 'vmdk');
}

class Check {
  readonly tally: CheckTally<keyof typeof explanations>;
  readonly #layout: VmdkLayout;
  readonly #files: ImageFiles;
  readonly #lengths: readonly number[];
  readonly #options: CheckOptions;
  /** Of its own: what an open image remembers may be older than its file. */
  readonly #mapping: VmdkMapping;

  /** @param lengths of the files, in bytes */
  constructor(
    layout: VmdkLayout,
    files: ImageFiles,
    lengths: readonly number[],
    options: CheckOptions,
  ) {
    this.tally = new CheckTally(explanations, options.onFinding);
    this.#layout = layout;
    this.#files = files;
    this.#lengths = lengths;
    this.#options = options;
    this.#mapping = new VmdkMapping(layout, files);
  }

  /** @returns whether to go on */
  async extent(number: number, extent: VmdkExtent): Promise<boolean> {
    if (extent.kind === 'zero') return true;
    const length = this.#lengths[extent.file];
    if (extent.kind === 'flat') {
      if (extent.offset >= length) return this.#giveUpAt(extent.start);
      // The last sector may be there in part.
      if (length + sectorBytes <= extent.offset + extent.length) {
        const why = `'${this.#files[extent.file].filename}' ends before extent ${number} does`;
        this.tally.corruption('shortExtent', `ERROR: ${why}`);
      }
      return true;
    }
    for await (const index of this.#mapping.tablesOf(number, extent).tablesBeyond(length)) {
      this.#options.signal?.throwIfAborted();
      const why = `grain table ${index} of extent ${number} lies beyond the end of the file`;
      this.tally.corruption('tableBeyondEnd', `ERROR: ${why}`);
    }
    return await this.#checkGrains(extent, length);
  }

  async #checkGrains(
    { start, length, grainBytes }: TabledExtent,
    fileLength: number,
  ): Promise<boolean> {
    const { signal, onProgress } = this.#options;
    const used = UsedClusters.of(Math.ceil(fileLength / grainBytes));
    if (used === undefined) {
      this.tally.failure = 'EFBIG';
      return false;
    }
    const others = new TurnOfOthers();
    for (let at = start; at < start + length;) {
      if (others.due) await others.take();
      signal?.throwIfAborted();
      let place: Place | Promise<Place>;
      try {
        place = this.#mapping.find(at, start + length - at);
        if (place instanceof Promise) place = await place;
      } catch (error) {
        if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_CORRUPT') throw error;
        const message = `ERROR: sector ${at / sectorBytes}: ${error.message}`;
        this.tally.corruption('invalidEntry', message);
        this.tally.failure = 'EINVAL';
        return false;
      }
      const beyond = grainBeyond(place, grainBytes, fileLength);
      if (beyond !== undefined) return this.#giveUpAt(at + beyond);
      if (place.kind === 'data') this.#take(used, place, at, grainBytes);
      at += place.length;
      onProgress?.({ doneBytes: at, totalBytes: this.#layout.size });
    }
    return true;
  }

  /** Takes the grains of a place, which begins with one. Grains that do not overlap begin so far apart. */
  #take(
    used: UsedClusters,
    { offset, length }: { readonly offset: number; readonly length: number },
    guestOffset: number,
    grainBytes: number,
  ): void {
    for (let within = 0; within < length; within += grainBytes) {
      if (used.take(Math.floor((offset + within) / grainBytes))) continue;
      const sector = (guestOffset + within) / sectorBytes;
      this.tally.corruption(
        'shared',
        `ERROR: grain of sector ${sector} lies where another one does`,
      );
    }
  }

  #giveUpAt(guestOffset: number): false {
    const why = `cluster offset for sector ${guestOffset / sectorBytes} points after EOF`;
    this.tally.corruption('grainBeyondEnd', `ERROR: ${why}`);
    this.tally.failure = 'EINVAL';
    return false;
  }
}

/** Where in a place, in bytes, its first grain is that begins beyond the end of the file. */
function grainBeyond(place: Place, grainBytes: number, fileLength: number): number | undefined {
  if (place.kind === 'compressed') {
    const { chunk } = place;
    return chunk instanceof CompressedGrain && chunk.hostOffset >= fileLength ? 0 : undefined;
  }
  if (place.kind !== 'data') return undefined;
  const within = Math.max(0, fileLength - place.offset);
  const first = Math.ceil(within / grainBytes) * grainBytes;
  return first < place.length ? first : undefined;
}
