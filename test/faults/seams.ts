/**
 * The places, other than operations of a device, at which the world refuses something: each
 * allocation of shared memory, each call of the addon, each operation that the addon runs. A seam
 * counts what passes through it and makes one of those fail.
 */
import { type Addon, type NativeRing, addon } from '../../src/native/addon.js';
import { Operation } from '../../src/native/ring.js';

/** Chooses what fails, and keeps count. */
export class Chooser {
  /** What has passed, by name. */
  readonly seen: string[] = [];
  readonly #nth: number;

  /** @param nth the one to fail, counting from 1; 0 for none */
  constructor(nth: number) {
    this.#nth = nth;
  }

  /** Counts one. @returns whether it is to fail */
  next(name: string): boolean {
    this.seen.push(name);
    return this.seen.length === this.#nth;
  }

  /** What was made to fail. */
  get struck(): string | undefined {
    return this.#nth === 0 ? undefined : this.seen.at(this.#nth - 1);
  }
}

/** A seam, and one way to fail there. */
export interface Seam {
  readonly name: string;
  /** Puts the seam in place. @returns takes it out again */
  readonly open: (chooser: Chooser) => () => void;
}

function failSharedMemory(chooser: Chooser): () => void {
  const original = globalThis.SharedArrayBuffer;
  globalThis.SharedArrayBuffer = new Proxy(original, {
    construct: (target, [length]: [number]) => {
      // Node's own code says nothing else when memory is out.
      if (chooser.next('SharedArrayBuffer')) throw new RangeError('Array buffer allocation failed');
      return new target(length);
    },
  });
  return () => {
    globalThis.SharedArrayBuffer = original;
  };
}

type AddonFunction = Exclude<
  { [Name in keyof Addon]: Addon[Name] extends boolean ? never : Name }[keyof Addon],
  never
>;

/** What each function of the addon answers when it fails. */
const refusals: Partial<Record<AddonFunction, number | boolean>> = {
  openFile: -24,
  retainFile: false,
  fileSize: -5,
  allocatedSize: -5,
  lockByte: -5,
  testByte: 1,
  createRing: -12,
};

/** Functions that make something, for which memory may be wanting. */
const makers: readonly AddonFunction[] = ['openFile', 'createRing'];

function replaceFunctions(
  names: readonly AddonFunction[],
  refuse: (name: AddonFunction) => number | boolean,
  chooser: Chooser,
): () => void {
  const functions = addon as unknown as Record<string, (...values: unknown[]) => unknown>;
  const originals = names.map((name) => functions[name]);
  for (const [index, name] of names.entries()) {
    functions[name] = (...values) =>
      chooser.next(name) ? refuse(name) : originals[index](...values);
  }
  return () => {
    for (const [index, name] of names.entries()) functions[name] = originals[index];
  };
}

const namesOfOperations = new Map<number, string>(
  Object.entries(Operation).map(([name, number]) => [number, name]),
);
const recordFields = 8;

/** What becomes of the operations of all rings of this thread. */
let current: { readonly chooser: Chooser; readonly errno: number } | undefined;

/** A ring of which a chosen operation reports an error at its end. */
function failingRing(
  create: Addon['createRing'],
  ...[engine, table, pending, completed, onCompletions]: Parameters<Addon['createRing']>
): NativeRing | number {
  const failing = new Map<number, number>();
  const change = (count: number): void => {
    for (const slot of completed.subarray(0, count)) {
      const errno = failing.get(slot);
      if (errno === undefined) continue;
      failing.delete(slot);
      table[slot * recordFields] = -errno;
    }
  };
  const ring = create(engine, table, pending, completed, (count) => {
    change(count);
    onCompletions(count);
  });
  if (typeof ring === 'number') return ring;
  return {
    usesUring: ring.usesUring,
    submit: (count) => {
      for (const slot of pending.subarray(0, count)) {
        const operation = namesOfOperations.get(table[slot * recordFields + 3]) ?? 'unknown';
        if (current?.chooser.next(operation) === true) failing.set(slot, current.errno);
      }
      const ended = ring.submit(count);
      change(ended);
      return ended;
    },
    hold: (slot, memory) => ring.hold(slot, memory),
    joinOrder: (slot, order) => {
      ring.joinOrder(slot, order);
    },
    useCipher: (slot, cipher) => {
      ring.useCipher(slot, cipher);
    },
    setVector: (slot, buffers) => ring.setVector(slot, buffers),
    close: () => {
      ring.close();
    },
  };
}

// Before any ring is made: that of the codecs lasts as long as the thread.
if (addon !== undefined) {
  const create = addon.createRing.bind(addon);
  addon.createRing = (...values) => failingRing(create, ...values);
}

function failOperations(errno: number, chooser: Chooser): () => void {
  current = { chooser, errno };
  return () => {
    current = undefined;
  };
}

/** Every seam. Operations that fail have happened all the same: the device's answer was lost. */
export const seams: readonly Seam[] = [
  { name: 'shared memory', open: failSharedMemory },
  {
    name: 'native call, refused',
    open: (chooser) =>
      replaceFunctions(
        Object.keys(refusals) as AddonFunction[],
        (name) => refusals[name]!,
        chooser,
      ),
  },
  {
    name: 'native call, throwing',
    open: (chooser) =>
      replaceFunctions(
        makers,
        () => {
          throw new RangeError('Array buffer allocation failed');
        },
        chooser,
      ),
  },
  { name: 'native operation, EIO', open: (chooser) => failOperations(5, chooser) },
  { name: 'native operation, ENOMEM', open: (chooser) => failOperations(12, chooser) },
  { name: 'native operation, ENOSPC', open: (chooser) => failOperations(28, chooser) },
];
