/** What changes the disk as a whole, or what it stands on. */
import fc from 'fast-check';
import { type Geometry, diskWords, isEncrypted, other } from './geometry.js';
import type { DiskFacts, Step } from './step.js';

const mebibyte = 1 << 20;
const names = fc.constantFrom('a', 'b', 'c');

/** Steps by the operation that they count as. */
export function changes(geometry: Geometry): Readonly<Record<string, fc.Arbitrary<Step>>> {
  const disk = diskWords(geometry);
  const unformatted = diskWords(geometry, '');
  const snapshot = (operation: string, flag: string): fc.Arbitrary<Step> =>
    names.map((name) => ({ operation, words: ['snapshot', flag, name, ...unformatted] }));
  const bitmap = (flag: string): fc.Arbitrary<Step> =>
    names.map((name) => ({
      operation: `bitmap ${flag}`,
      words: ['bitmap', `--${flag}`, ...disk, name],
    }));
  return {
    'snapshot -c': snapshot('snapshot -c', '-c').map((step) => ({
      ...step,
      // What QEMU copies of a cluster that is shared ends with the subclusters that hold something.
      isStoredOtherwise: () => geometry.granule < geometry.clusterBytes,
      // QEMU leaks where counts have no room; and makes tables, to be counted too, where nothing is given up.
      isLeftOut: ({ refcountBits, hasCompressed }) =>
        refcountBits < 8 || (refcountBits === 8 && hasCompressed),
    })),
    'snapshot -a': snapshot('snapshot -a', '-a').map((step) => ({
      ...step,
      // Neither program can; which of the reasons is told differs.
      isLeftOut: () => geometry.keeping.endsWith('file'),
    })),
    'snapshot -d': snapshot('snapshot -d', '-d'),
    'bitmap add': fc
      .tuple(
        names,
        fc.constantFrom([], [], ['-g', '512'], ['-g', '4k'], ['-g', '1M'], ['--disable']),
      )
      .map(([name, more]) => ({
        operation: 'bitmap add',
        words: ['bitmap', '--add', ...more, ...disk, name],
      })),
    'bitmap remove': bitmap('remove'),
    'bitmap clear': bitmap('clear'),
    'bitmap enable': bitmap('enable'),
    'bitmap disable': bitmap('disable'),
    'bitmap merge': fc.tuple(names, names, fc.boolean()).map(([from, into, isOther]) => ({
      operation: 'bitmap merge',
      words: [
        ...['bitmap', '--merge', from, ...(isOther ? ['-b', 'other', '-F', 'qcow2'] : [])],
        ...[...disk, into],
      ],
    })),
    amend: amends(geometry),
    resize: resizes(geometry),
    commit: commits(geometry),
    rebase: rebases(geometry),
    'check -r': fc.constantFrom('leaks', 'all').map((what) => ({
      operation: 'check -r',
      words: ['check', '-r', what, ...disk],
      // QEMU 10 forgets all snapshots of an image with bitmaps, and takes their tables for leaks.
      isLeftOut: ({ hasBitmaps, hasSnapshots }) => hasBitmaps && hasSnapshots,
    })),
  };
}

function amends(geometry: Geometry): fc.Arbitrary<Step> {
  // qemu-img looks at each count that a refcount table could lead to.
  const widths = geometry.clusterBytes > 4096 ? [] : [1, 2, 8, 16, 64];
  return fc
    .constantFrom(
      ...['compat=0.10', 'compat=1.1', 'compat=1.1,lazy_refcounts=on', 'lazy_refcounts=on'],
      ...['lazy_refcounts=off', 'cluster_size=8k'],
      ...[`size=${geometry.bytes}`, `size=${3 * mebibyte}`],
      ...widths.map((width) => `refcount_bits=${width}`),
    )
    .map((options) => ({
      operation: 'amend',
      isLeftOut: (disk) => isAmendedDifferently(options, disk, geometry),
      words: ['amend', '-o', options, ...diskWords(geometry)],
    }));
}

/** Whether programs are known to differ about what an image is to be. */
function isAmendedDifferently(options: string, disk: DiskFacts, geometry: Geometry): boolean {
  // QEMU gives up bitmaps for a version that has none, stores zeroes of encrypted disks as noise, and overwrites what
  // snapshots have of zeroes.
  if (options === 'compat=0.10') {
    return isEncrypted(geometry) || disk.hasBitmaps || disk.hasSnapshots;
  }
  // How many compressed clusters share one depends on where it begins.
  if (/^refcount_bits=[12]$/.test(options)) return disk.hasCompressed || disk.hasSnapshots;
  // Nothing is done here where the size is the same; QEMU refuses that of some images.
  return options.startsWith('size') && (options === `size=${disk.bytes}` || showsOldBytes(disk));
}

/** Where a disk grows within a cluster, QEMU shows what that had beyond the end. */
function showsOldBytes(disk: DiskFacts): boolean {
  return disk.bytes % disk.clusterBytes !== 0;
}

function resizes(geometry: Geometry): fc.Arbitrary<Step> {
  const sizes = fc.oneof(
    fc.integer({ min: 1, max: 9 }).map((count) => `${count}M`),
    fc.integer({ min: 1, max: 9 }).map((count) => `${count}M`),
    fc.integer({ min: 2000, max: 16_000 }).map((count) => String(count * 512)),
    fc.integer({ min: 1, max: 14 }).map((count) => `+${count * 64}k`),
    fc.integer({ min: 1, max: 14 }).map((count) => `-${count * 64}k`),
    fc.integer({ min: 1, max: 900 }).map((count) => `-${count}k`),
  );
  // With others QEMU shows what clusters that are used again have held.
  const modes = fc.constantFrom('', 'off');
  return fc.tuple(sizes, modes, fc.integer({ min: 0, max: 3 })).map(([size, mode, shrinks]) => ({
    operation: 'resize',
    isLeftOut: showsOldBytes,
    words: [
      ...['resize', ...(shrinks > 0 ? ['--shrink'] : [])],
      ...(mode === '' ? [] : ['--preallocation', mode]),
      ...[...diskWords(geometry), size],
    ],
  }));
}

function commits(geometry: Geometry): fc.Arbitrary<Step> {
  const { below } = geometry;
  // Here images of most formats do not grow. QEMU's do, or fail in other words, as those of version 2.
  const fixed = below.filter(
    ({ format, options }) =>
      (format !== 'raw' && format !== 'qcow2') || options.includes('compat=0.10'),
  );
  const most = Math.min(...fixed.map(({ bytes }) => bytes));
  const bases = fc.constantFrom('', ...below.map(({ name }) => name));
  return fc.tuple(bases, fc.boolean()).map(([base, keeps]) => ({
    operation: 'commit',
    words: [
      ...['commit', ...(base === '' ? [] : ['-b', base]), ...(keeps ? ['-d'] : [])],
      ...diskWords(geometry),
    ],
    touched: below,
    // QEMU commits in chunks of 64 KiB: zeroes that do not fill one are data for it, and none are given up.
    isStoredOtherwise: ({ backing }) => backing !== undefined,
    // What was given a secret is called by a list of options by QEMU.
    isLeftOut: (disk) => disk.bytes > most || (isEncrypted(geometry) && base !== ''),
  }));
}

function rebases(geometry: Geometry): fc.Arbitrary<Step> {
  const { below, comparesContentAlone, keeping } = geometry;
  const canCompress = !keeping.endsWith('file');
  // What was given a secret has a name to which no other is relative, in QEMU.
  const images = isEncrypted(geometry) ? [] : [...below, other];
  const onto = fc.constantFrom(
    ['-b', ''],
    ...images.map(({ name, format }) => ['-b', name, '-F', format]),
  );
  const ways = fc.constantFrom<readonly string[]>(
    ...(comparesContentAlone ? [[], [], ['-u'], canCompress ? ['-c'] : []] : [['-u']]),
  );
  return fc.tuple(onto, ways).map(([backing, way]) => ({
    operation: 'rebase',
    words: ['rebase', ...way, ...backing, ...diskWords(geometry)],
    // QEMU stores zeroes as data where something else would show, compressed or not.
    isStoredOtherwise: () => !way.includes('-u'),
    // What is stored already is not copied, and so not recorded.
    isRecordedOtherwise: (disk) => disk.isStoredOtherwise && !way.includes('-u'),
    // Zeroes that are not stored are what the image below has, when that changes unseen.
    // QEMU 10 loses the zeroes of a version 2 image that comes to stand on another.
    isLeftOut: (disk) =>
      way.includes('-u')
        ? disk.isStoredOtherwise
        : disk.isVersion2 && disk.backing === undefined && !backing.includes(''),
  }));
}
