/** Random requests on a few clusters that everybody wants. */
import fc from 'fast-check';
import type { Lane, Request } from './simulated-disk.js';

/** Where requests go, and which. */
export interface RequestChoice {
  readonly sectorsPerCluster: number;
  /** Guest clusters that requests touch; a request may reach into the one after. */
  readonly clusters: readonly number[];
  readonly weights: Readonly<Partial<Record<Request['kind'], number>>>;
}

/** One request. */
export function requests({
  sectorsPerCluster,
  clusters,
  weights,
}: RequestChoice): fc.Arbitrary<Request> {
  const cluster = fc.constantFrom(...clusters);
  const whole = cluster.map((index) => ({
    sector: index * sectorsPerCluster,
    count: sectorsPerCluster,
  }));
  const place = fc.oneof(
    whole,
    fc
      .record({
        index: cluster,
        within: fc.integer({ min: 0, max: sectorsPerCluster - 1 }),
        count: fc.integer({ min: 1, max: Math.min(sectorsPerCluster, 8) }),
      })
      .map(({ index, within, count }) => ({ sector: index * sectorsPerCluster + within, count })),
    fc
      .record({ index: cluster, clusters: fc.integer({ min: 2, max: 3 }) })
      .map(({ index, clusters: reach }) => ({
        sector: index * sectorsPerCluster,
        count: reach * sectorsPerCluster,
      })),
  );
  const kinds: Readonly<Record<Request['kind'], fc.Arbitrary<Request>>> = {
    write: place.map((at) => ({ kind: 'write', ...at })),
    read: place.map((at) => ({ kind: 'read', ...at })),
    discard: place.map((at) => ({ kind: 'discard', ...at })),
    zero: fc
      .record({ at: place, unmap: fc.boolean() })
      .map(({ at, unmap }) => ({ kind: 'zero', ...at, unmap })),
    compress: whole.map((at) => ({ kind: 'compress', ...at })),
    flush: fc.constant<Request>({ kind: 'flush' }),
  };
  return fc.oneof(
    ...Object.entries(weights).map(([kind, weight]) => ({
      weight,
      arbitrary: kinds[kind as Request['kind']],
    })),
  );
}

/** Several users, spread over the queues, each with requests one after the other. */
export function lanes(request: fc.Arbitrary<Request>, queues: number): fc.Arbitrary<Lane[]> {
  return fc.array(
    fc.record({
      queue: fc.integer({ min: 0, max: queues - 1 }),
      requests: fc.array(request, { minLength: 1, maxLength: 8 }),
    }),
    { minLength: 2, maxLength: 6 },
  );
}
