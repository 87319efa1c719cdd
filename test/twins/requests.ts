/** Requests to the disk, as commands of `io`. */
import fc from 'fast-check';
import { type Geometry, isEncrypted, diskWords } from './geometry.js';
import type { DiskFacts, Step } from './step.js';

/** What is said to `io` in one step, by the operation it counts as. */
export function requests(geometry: Geometry): Readonly<Record<string, fc.Arbitrary<Step>>> {
  const { bytes, clusterBytes, granule } = geometry;
  // What was its end once may be beyond it later, too.
  const beyond = fc.integer({ min: 0, max: 31 }).map((drawn) => drawn === 0);
  const pattern = fc.integer({ min: 0, max: 255 });
  const aligned = (unit: number, most: number): fc.Arbitrary<string> =>
    fc
      .tuple(fc.nat(Math.floor(bytes / unit) - 1), fc.integer({ min: 1, max: most }), beyond)
      .map(([first, count, isBeyond]) => {
        const whole = isBeyond ? count : Math.min(count, Math.floor(bytes / unit) - first);
        return `${first * unit} ${whole * unit}`;
      });
  const clusters = aligned(clusterBytes, Math.max(3, Math.min(64, (1 << 20) / clusterBytes)));
  const granules = fc.oneof(clusters, aligned(granule, 80));
  const anywhere = fc
    .tuple(fc.nat(bytes), fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.nat(300_000)), beyond)
    .map(([at, length, isBeyond]) => `${at} ${isBeyond ? length : Math.min(length, bytes - at)}`);
  const places = fc.oneof(clusters, granules, aligned(512, 200), anywhere);
  const one = (operation: string, lines: fc.Arbitrary<readonly string[]>): fc.Arbitrary<Step> =>
    lines.map((each) => ({
      operation,
      words: ['io', ...each.flatMap((line) => ['-c', line]), ...diskWords(geometry)],
    }));
  // Without clusters of zeroes QEMU stores some as data where no image below reaches.
  const zeroes = (operation: string, words: string): fc.Arbitrary<Step> =>
    one(
      operation,
      places.map((at) => [`${words} ${at}`]),
    ).map((step) => ({ ...step, isStoredOtherwise }));
  const write = fc.tuple(pattern, places).map(([p, at]) => `write -P ${p} ${at}`);
  return {
    'io write': one('io write', fc.array(write, { minLength: 1, maxLength: 3 })),
    'io aio_write': one(
      'io aio_write',
      fc.tuple(pattern, places).map(([p, at]) => [`aio_write -q -P ${p} ${at}`, 'aio_flush']),
    ),
    'io write -z': zeroes('io write -z', 'write -z'),
    'io write -zu': zeroes('io write -zu', 'write -z -u'),
    'io discard': one(
      'io discard',
      granules.map((at) => [`discard ${at}`]),
    ),
    'io write -c': one(
      'io write -c',
      // One cluster: of several QEMU compresses some beside each other, also where the first is refused.
      fc.tuple(pattern, aligned(clusterBytes, 1)).map(([p, at]) => [`write -c -P ${p} ${at}`]),
    ).map((step) => ({
      ...step,
      // What has a cluster is refused, and QEMU has it recorded all the same.
      // Of subclusters and encrypted disks nothing tells which zeroes have one.
      isLeftOut: (disk) =>
        disk.hasBitmaps ||
        disk.isStoredOtherwise ||
        granule < clusterBytes ||
        isEncrypted(geometry),
    })),
    'io read': one(
      'io read',
      fc
        .tuple(pattern, places)
        .map(([p, at]) => [`read -P ${p} ${at}`, `read -v ${at.replace(/\d+$/, '64')}`]),
    ),
    'io mixed': one(
      'io mixed',
      fc.array(
        fc.oneof(
          write,
          granules.map((at) => `discard ${at}`),
          places.map((at) => `write -z ${at}`),
          fc.constantFrom(
            'flush',
            'length',
            'reopen -w',
            ...(isEncrypted(geometry) ? [] : ['reopen']),
          ),
        ),
        { minLength: 2, maxLength: 6 },
      ),
    ).map((step) => ({ ...step, isStoredOtherwise })),
  };
}

function isStoredOtherwise({ isVersion2, backing }: DiskFacts): boolean {
  return isVersion2 && backing !== undefined;
}
