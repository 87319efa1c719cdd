/** What copies the disk into another image. */
import fc from 'fast-check';
import {
  type Geometry,
  diskWords,
  isEncrypted,
  diskOptions,
  secretWords,
  other,
} from './geometry.js';
import type { DiskFacts, PairedImage, Step } from './step.js';

const targets: readonly (readonly [format: string, options: string])[] = [
  ['raw', ''],
  ['qcow2', ''],
  ['qcow2', 'cluster_size=4k'],
  ['qcow2', 'cluster_size=512,refcount_bits=64'],
  ['qcow2', 'extended_l2=on,cluster_size=16k'],
  ['qcow2', 'compression_type=zstd,compat=1.1'],
  ['qcow2', 'compat=0.10'],
  ['qcow2', 'preallocation=metadata'],
  ['vmdk', ''],
  ['vmdk', 'subformat=streamOptimized'],
  ['vdi', ''],
  ['qed', ''],
  ['vpc', 'force_size=on'],
  ['vhdx', ''],
];

/** Steps by the operation that they count as. */
export function copies(geometry: Geometry): Readonly<Record<string, fc.Arbitrary<Step>>> {
  return { convert: conversions(geometry), dd: pieces(geometry), create: creations(geometry) };
}

function made(format: string): readonly PairedImage[] {
  return [{ name: 'made', format }];
}

function conversions(geometry: Geometry): fc.Arbitrary<Step> {
  const below = geometry.below.at(-1);
  const more = fc.constantFrom<readonly (readonly string[])[]>(
    ...[[], [], [], [['-c']], [['-S', '0']], [['-S', '4k']], [['-l', 'a']], [['-l', 'b'], ['-c']]],
    ...[[['--bitmaps']], [['-m', '1']], [['-W']], [['-l', 'snapshot.name=a']], [['-n']]],
    ...(below === undefined ? [] : [[['-B', below.name, '-F', below.format]]]),
  );
  return fc.tuple(fc.constantFrom(...targets), more).map(([[format, options], words]) => {
    const drawn = words.flat();
    // Of several reasons for a refusal either program tells the first that it meets.
    const flags = isRefused(drawn, format, options) ? [] : drawn;
    const isOnto = flags.includes('-n');
    const isStoredOtherwise = findsZeroesOtherwise(geometry, options);
    const target = isOnto ? other : { name: 'made', format, isStoredOtherwise };
    const source = isEncrypted(geometry)
      ? [...secretWords(geometry), '--image-opts', diskOptions(geometry)]
      : ['-f', 'qcow2', 'disk'];
    return {
      operation: 'convert',
      words: [
        ...['convert', '-O', target.format, ...flags],
        ...(options === '' || isOnto ? [] : ['-o', options]),
        ...[...source, target.name],
      ],
      touched: [target],
      // What is zero already is left as it is here.
      isStoredOtherwise: () => isOnto,
      // What the source stands on is refused in plain words here.
      isLeftOut: (disk) =>
        (isOnto && disk.backing === other.name) ||
        (flags.includes('-B') && losesZeroes(geometry, disk, below?.name)),
    };
  });
}

/**
 * Whether QEMU 10 leaves what the disk has beyond its own backing file to that of the target, as if it were that file's:
 * then other data show there.
 */
function losesZeroes({ below, otherBytes }: Geometry, disk: DiskFacts, onto?: string): boolean {
  const { backing } = disk;
  if (backing === undefined || backing === onto) return false;
  const bytes = below.find(({ name }) => name === backing)?.bytes ?? otherBytes;
  return bytes < disk.bytes;
}

function isRefused(flags: readonly string[], format: string, options: string): boolean {
  if (flags.includes('-B')) return format !== 'qcow2' && format !== 'qed';
  if (!flags.includes('-c')) return false;
  if (format === 'qcow2') return options.includes('preallocation');
  return !options.includes('streamOptimized');
}

/** Whether zeroes are looked for in other steps than QEMU's. */
function findsZeroesOtherwise({ below }: Geometry, options: string): boolean {
  if (options.includes('extended_l2') || options.includes('cluster_size=512')) return true;
  // Blocks of VHD begin at any sector, and the host's holes in them, which end what is looked at as one.
  return below.some(({ format }) => format === 'vpc');
}

function pieces(geometry: Geometry): fc.Arbitrary<Step> {
  return fc
    .tuple(
      fc.constantFrom('raw', 'qcow2', 'vdi'),
      fc.constantFrom('512', '4k', '64k', '1M', '1000'),
      fc.option(fc.nat(30), { nil: undefined }),
      fc.option(fc.nat(30), { nil: undefined }),
    )
    .map(([format, bs, count, skip]) => {
      const [source, ...rest] = [...diskWords(geometry)].reverse();
      return {
        operation: 'dd',
        words: [
          ...['dd', '-O', format, ...rest.reverse(), `bs=${bs}`],
          ...(count === undefined ? [] : [`count=${count}`]),
          ...(skip === undefined ? [] : [`skip=${skip}`]),
          ...[`if=${source}`, 'of=made'],
        ],
        touched: made(format),
      };
    });
}

function creations({ below, bytes }: Geometry): fc.Arbitrary<Step> {
  const under = below.at(-1);
  const stands = fc.boolean().map((is) => is && under !== undefined);
  return fc.tuple(fc.constantFrom(...targets), stands).map(([[format, options], isAbove]) => {
    const takes = isAbove && under !== undefined && ['qcow2', 'qed'].includes(format);
    return {
      operation: 'create',
      words: [
        ...['create', '-f', format, ...(options === '' ? [] : ['-o', options])],
        ...(takes ? ['-b', under.name, '-F', under.format] : []),
        ...['made', String(bytes)],
      ],
      touched: made(format),
    };
  });
}
