/** What only tells something of the disk: both programs are asked about the same files. */
import fc from 'fast-check';
import {
  type Geometry,
  diskWords,
  hidesPlaces,
  isEncrypted,
  diskOptions,
  secretWords,
} from './geometry.js';
import type { Step } from './step.js';

/** Steps by the operation that they count as. */
export function reports(geometry: Geometry): Readonly<Record<string, fc.Arbitrary<Step>>> {
  const disk = diskWords(geometry);
  const one = (operation: string, words: fc.Arbitrary<readonly string[]>): fc.Arbitrary<Step> =>
    words.map((each) => ({ operation, words: each, isReport: true }));
  return {
    'snapshot -l': one('snapshot -l', fc.constant(['snapshot', '-l', ...diskWords(geometry, '')])),
    info: one('info', fc.constantFrom(['info', ...disk], ['info', '--backing-chain', ...disk])),
    check: one('check', fc.constant(['check', ...disk])),
    map: one(
      'map',
      fc
        .tuple(fc.nat(geometry.bytes), fc.nat(geometry.bytes))
        .map(([start, length]) => ['map', '-s', String(start), '-l', String(length), ...disk]),
    ).map((step) => ({ ...step, isLeftOut: () => hidesPlaces(geometry) })),
    measure: one(
      'measure',
      fc
        .tuple(
          fc.constantFrom(
            ...[
              ['-O', 'raw'],
              ['-O', 'qcow2'],
              ['-O', 'qcow2', '-o', 'cluster_size=4k'],
            ],
            ['-O', 'qcow2', '-o', 'compat=0.10,preallocation=metadata'],
          ),
          fc.constantFrom([], [], [], ['-l', 'a']),
          fc.constantFrom([], ['--output=json']),
        )
        .map((words) => ['measure', ...words.flat(), ...disk]),
    ),
    compare: one(
      'compare',
      fc.constantFrom([], ['-s']).map((flags) => {
        const images = isEncrypted(geometry)
          ? [...secretWords(geometry), '--image-opts', diskOptions(geometry), otherOptions]
          : ['-f', 'qcow2', '-F', 'qcow2', 'disk', 'other'];
        return ['compare', ...flags, ...images];
      }),
    ).map((step) => ({
      ...step,
      // It shows how things are stored.
      isLeftOut: (disk) => step.words.includes('-s') && disk.isStoredOtherwise,
    })),
  };
}

const otherOptions = 'driver=qcow2,file.filename=other';
