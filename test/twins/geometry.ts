/** The images that a pair begins with: how they are drawn, made and named. */
import fc from 'fast-check';
import type { PairedImage } from './step.js';

const sector = 512;
const mebibyte = 1 << 20;

/** An image below the disk. */
interface Layer extends PairedImage {
  readonly options: string;
  readonly bytes: number;
}

/** Every fact about the disk of a pair, the images below it and one beside it. */
export interface Geometry {
  readonly clusterBytes: number;
  /** The parts in which clusters are allocated. */
  readonly granule: number;
  readonly bytes: number;
  /** As `-o` has them. */
  readonly options: readonly string[];
  readonly keeping: Keeping;
  /** Lowest first. */
  readonly below: readonly Layer[];
  readonly otherOptions: string;
  readonly otherBytes: number;
  /** Whether some of what is done leaves the same content in another way. */
  readonly comparesContentAlone: boolean;
}

/** Where the data lie, and as what. */
type Keeping = 'plain' | 'data file' | 'raw data file' | 'luks' | 'aes';

/** The secret of encrypted disks. */
const secret = ['--object', 'secret,id=key,data=of twins'];
/** The one file of data that a disk may have. */
const dataFile = 'disk.data';

const layouts: readonly (readonly [clusterBytes: number, granule: number, options: string])[] = [
  [512, 512, ''],
  [512, 512, 'refcount_bits=64'],
  [4096, 4096, ''],
  [4096, 4096, 'compat=0.10'],
  [4096, 4096, 'refcount_bits=1'],
  [4096, 4096, 'refcount_bits=8,lazy_refcounts=on'],
  [4096, 4096, 'compression_type=zstd'],
  [16_384, 512, 'extended_l2=on'],
  [65_536, 2048, 'extended_l2=on,compression_type=zstd'],
  [32_768, 32_768, 'lazy_refcounts=on'],
  [65_536, 65_536, ''],
  [65_536, 65_536, 'compat=0.10'],
];

const sizes = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 8 }).map((count) => count * mebibyte) },
  fc
    .integer({ min: mebibyte / sector, max: (6 * mebibyte) / sector })
    .map((count) => count * sector),
);

const layerKinds: readonly (readonly [format: string, options: string])[] = [
  ['raw', ''],
  ['raw', ''],
  ['qcow2', 'cluster_size=4k'],
  ['qcow2', 'cluster_size=64k'],
  ['qcow2', 'cluster_size=16k,extended_l2=on'],
  ['qcow2', 'cluster_size=512,compat=0.10'],
  ['vmdk', ''],
  ['vdi', ''],
  ['qed', ''],
  ['vpc', 'force_size=on'],
  ['vhdx', ''],
];

const below = fc
  .array(fc.tuple(fc.constantFrom(...layerKinds), sizes), { maxLength: 2 })
  .map((layers) =>
    layers.map(([[format, options], bytes], index) => {
      // What is not qcow2 has nothing below it here.
      const isBottom = index === 0 || format === 'qcow2';
      return {
        name: `below${index}`,
        format: isBottom ? format : 'qcow2',
        options: isBottom ? options : '',
        bytes,
      };
    }),
  );

/** Everything drawn. */
export const geometries: fc.Arbitrary<Geometry> = fc
  .record({
    layout: fc.constantFrom(...layouts),
    bytes: sizes,
    preallocation: fc.constantFrom('', '', '', '', '', 'metadata', 'falloc', 'full'),
    keeping: fc.constantFrom<Keeping>(
      ...['plain', 'plain', 'plain', 'plain', 'plain', 'plain', 'plain'].map(
        () => 'plain' as const,
      ),
      'data file',
      'raw data file',
      'luks',
      'aes',
    ),
    below,
    otherOptions: fc.constantFrom('cluster_size=64k', 'cluster_size=4k', 'cluster_size=512'),
    otherBytes: sizes,
    comparesContentAlone: fc.integer({ min: 0, max: 2 }).map((drawn) => drawn === 0),
  })
  .map(({ layout: [clusterBytes, granule, layoutOptions], preallocation, ...rest }) => {
    const keeping =
      layoutOptions === 'compat=0.10' && rest.keeping.endsWith('file') ? 'plain' : rest.keeping;
    // Preallocated clusters of encrypted disks read as noise with QEMU, and as zeroes here.
    const isPreallocated = keeping !== 'luks' && keeping !== 'aes';
    const hasBelow = rest.below.length > 0 && keeping !== 'raw data file';
    const options = [`cluster_size=${clusterBytes}`, layoutOptions, ...keepingOptions(keeping)];
    if (preallocation !== '' && !hasBelow && isPreallocated)
      options.push(`preallocation=${preallocation}`);
    return {
      ...rest,
      clusterBytes,
      granule,
      keeping,
      below: hasBelow ? rest.below : [],
      options: options.filter((option) => option !== ''),
    };
  });

function keepingOptions(keeping: Keeping): readonly string[] {
  if (keeping === 'data file') return [`data_file=${dataFile}`];
  if (keeping === 'raw data file') return [`data_file=${dataFile},data_file_raw=on`];
  if (keeping === 'plain') return [];
  const time = keeping === 'luks' ? ',encrypt.iter-time=10' : '';
  return [`encrypt.format=${keeping},encrypt.key-secret=key${time}`];
}

/** Whether the disk is encrypted. */
export function isEncrypted({ keeping }: Geometry): boolean {
  return keeping === 'luks' || keeping === 'aes';
}

/** Whether there is an image of which QEMU does not tell where its data lie. */
export function hidesPlaces({ below: layers }: Geometry): boolean {
  return layers.some(({ format }) => format === 'vhdx');
}

/** The options by which programs are given the secret, where there is one. */
export function secretWords(geometry: Geometry): readonly string[] {
  return isEncrypted(geometry) ? secret : [];
}

/** The definition of the disk in a folder, for `--image-opts`. */
export function diskOptions(geometry: Geometry, folder = ''): string {
  const { keeping } = geometry;
  const key = isEncrypted(geometry) ? ',encrypt.key-secret=key' : '';
  // A data file is looked for in the working directory.
  const data = keeping.endsWith('file') ? `,data-file.filename=${folder}${dataFile}` : '';
  return `driver=qcow2,file.filename=${folder}disk${key}${data}`;
}

/** The words that name the disk; where nothing has to be said of it, by its name and a format. */
export function diskWords(geometry: Geometry, format = '-f'): readonly string[] {
  if (!isEncrypted(geometry)) return format === '' ? ['disk'] : [format, 'qcow2', 'disk'];
  return [...secret, '--image-opts', diskOptions(geometry)];
}

/** The image beside the disk. */
export const other: PairedImage = { name: 'other', format: 'qcow2' };

/** The command lines that make the images. */
export function creation(geometry: Geometry): readonly (readonly string[])[] {
  const lines: (readonly string[])[] = [];
  for (const [index, { name, format, options, bytes }] of geometry.below.entries()) {
    const under = geometry.below.slice(0, index).at(-1);
    lines.push([
      ...['create', '-f', format, ...(options === '' ? [] : ['-o', options])],
      ...(under === undefined ? [] : ['-b', under.name, '-F', under.format]),
      ...[name, String(bytes)],
    ]);
    lines.push(['io', '-f', format, ...fillings(bytes, index + 1), name]);
  }
  const under = geometry.below.at(-1);
  lines.push([
    ...['create', '-f', 'qcow2', ...secretWords(geometry), '-o', geometry.options.join()],
    ...(under === undefined ? [] : ['-b', under.name, '-F', under.format]),
    ...['disk', String(geometry.bytes)],
  ]);
  const { otherOptions, otherBytes } = geometry;
  lines.push(['create', '-f', 'qcow2', '-o', otherOptions, 'other', String(otherBytes)]);
  lines.push(['bitmap', '--add', '-f', 'qcow2', 'other', 'b']);
  lines.push(['io', '-f', 'qcow2', ...fillings(otherBytes, 9), 'other']);
  return lines;
}

/** Data in the first part of an image, a hole, and some data at its end. */
function fillings(bytes: number, pattern: number): readonly string[] {
  const part = Math.floor(bytes / 4 / sector) * sector;
  const lines = [
    `write -P ${pattern} 0 ${part}`,
    `write -P ${pattern + 1} ${part + 65_536} 70k`,
    `write -P ${pattern + 2} ${bytes - 20_480} 20k`,
  ];
  return lines.flatMap((line) => ['-c', line]);
}
