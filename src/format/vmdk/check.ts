/** Checking a VMDK image: whether its tables and the grains that they name lie in the extents' files. */
import { TurnOfOthers } from '../../turn-of-others.js';
import type { CheckOptions, CheckReport } from '../check.js';
import type { ImageFiles } from '../driver.js';
import { unrepairedFormat } from '../failures.js';
import { CheckTally } from '../mapped/check-tally.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import { type GrainTables, zeroed } from './grain-tables.js';
import { type TabledExtent, type VmdkExtent, type VmdkLayout, sectorBytes } from './layout.js';
import { VmdkMapping } from './mapping.js';
import { entriesOf, tableRuns } from './table-walk.js';

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
    const tables = this.#mapping.tablesOf(number, extent);
    const tableBytes = extent.tableEntries * tables.entryBytes;
    for await (const { index, count, offset } of tableRuns(this.#files[extent.file], tables)) {
      this.#options.signal?.throwIfAborted();
      for (let table = 0; table < count; table += 1) {
        if (offset + (table + 1) * tableBytes <= length || Number.isNaN(offset)) continue;
        const why = `grain table ${index + table} of extent ${number} lies beyond the end of the file`;
        this.tally.corruption('tableBeyondEnd', `ERROR: ${why}`);
      }
    }
    return await this.#checkTables(extent, tables, length);
  }

  async #checkTables(
    extent: TabledExtent,
    tables: GrainTables,
    fileLength: number,
  ): Promise<boolean> {
    const { signal, onProgress } = this.#options;
    const file = this.#files[extent.file];
    const { grainBytes, tableEntries, directoryEntries } = extent;
    // Compressed grains begin at any sector; others that do not overlap begin a grain apart.
    const isCompressed = extent.kind === 'sparse' && extent.compression !== 'none';
    const unit = isCompressed ? sectorBytes : grainBytes;
    const used = UsedClusters.of(Math.ceil(fileLength / unit));
    if (used === undefined) {
      this.tally.failure = 'EFBIG';
      return false;
    }
    const grains = Math.ceil(extent.length / grainBytes);
    const others = new TurnOfOthers();
    for await (const run of tableRuns(file, tables)) {
      const first = run.index * tableEntries;
      if (first >= grains) break;
      if (Number.isNaN(run.offset)) {
        const why = `entry ${run.index} of the grain directory is invalid`;
        return this.#invalid(extent, first, why);
      }
      for await (const { at, view } of entriesOf(file, tables, run)) {
        if (others.due) await others.take();
        signal?.throwIfAborted();
        const from = first + at / tables.entryBytes;
        const count = Math.min(view.byteLength / tables.entryBytes, grains - from);
        for (let within = 0; within < count; within += 1) {
          const offset = tables.grainAt(view, within);
          if (offset === 0 || offset === zeroed) continue;
          const grain = from + within;
          if (Number.isNaN(offset)) {
            return this.#invalid(extent, grain, `the table's entry of grain ${grain} is invalid`);
          }
          if (offset >= fileLength) return this.#giveUpAt(extent.start + grain * grainBytes);
          if (!used.take(Math.floor(offset / unit))) this.#shared(extent, grain);
        }
        const doneBytes = extent.start + Math.min((from + count) * grainBytes, extent.length);
        onProgress?.({ doneBytes, totalBytes: this.#layout.size });
      }
    }
    if (directoryEntries * tableEntries < grains) {
      const why = 'the grain directory is too short';
      return this.#invalid(extent, directoryEntries * tableEntries, why);
    }
    onProgress?.({ doneBytes: extent.start + extent.length, totalBytes: this.#layout.size });
    return true;
  }

  #shared({ start, grainBytes }: TabledExtent, grain: number): void {
    const sector = (start + grain * grainBytes) / sectorBytes;
    this.tally.corruption('shared', `ERROR: grain of sector ${sector} lies where another one does`);
  }

  /** Nothing behind an entry that makes no sense is looked at. */
  #invalid({ start, grainBytes, file }: TabledExtent, grain: number, why: string): false {
    const sector = (start + grain * grainBytes) / sectorBytes;
    const { filename } = this.#files[file];
    this.tally.corruption('invalidEntry', `ERROR: sector ${sector}: '${filename}': ${why}`);
    this.tally.failure = 'EINVAL';
    return false;
  }

  #giveUpAt(guestOffset: number): false {
    const why = `cluster offset for sector ${guestOffset / sectorBytes} points after EOF`;
    this.tally.corruption('grainBeyondEnd', `ERROR: ${why}`);
    this.tally.failure = 'EINVAL';
    return false;
  }
}
