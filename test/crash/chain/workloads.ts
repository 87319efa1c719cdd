/** Work on chains of images that is cut off: committing and rebasing. */
import assert from 'node:assert/strict';
import type { CreateOptions } from '../../../src/image/api/options.js';
import type { ImageFormat } from '../../../src/image/api/reports.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { commit } from '../../../src/jobs/commit.js';
import { rebase } from '../../../src/jobs/rebase.js';
import { Random } from '../../stress/random.js';
import type { MemoryFiles } from './memory-files.js';

const kib = 1024;

/** What runs on a chain, and on which. `top` is its uppermost image. */
export interface ChainWorkload {
  readonly name: string;
  /** From the lowest on. */
  readonly images: readonly ChainImage[];
  readonly run: (files: MemoryFiles) => Promise<void>;
  /** Whether what has failed once is done again before the image is closed, and only then told of. */
  readonly isDoneAgain?: boolean;
  /** Looks at what is left when nothing was cut off. */
  readonly expect?: (files: MemoryFiles, content: Uint8Array) => Promise<void>;
}

/** An image of a workload. */
export interface ChainImage {
  readonly name: string;
  readonly format: ImageFormat;
  /** Bytes. */
  readonly size: number;
  readonly options?: CreateOptions;
  readonly backing?: string;
  /** Requests that fill it, and where they are. */
  readonly requests: number;
}

/** Makes the images of a workload. */
export async function makeChain(
  { images }: ChainWorkload,
  files: MemoryFiles,
  seed: number,
): Promise<void> {
  files.place(new Map());
  const random = new Random(seed);
  for (const { name, format, size, options, backing, requests } of images) {
    const below = images.find((each) => each.name === backing);
    const path = files.nameOf(name);
    await createImage(path, {
      ...options,
      ...(below && { backingFile: files.nameOf(below.name), backingFormat: below.format }),
      format,
      size,
    });
    await using image = await openImage(path, { format });
    for (let request = 0; request < requests; request++) {
      const offset = 512 * random.below(size / 512);
      const length = Math.min(size - offset, 512 * (1 + random.below(24)));
      if (random.below(4) === 0) await image.writeZeroes(offset, length);
      else await image.write(new Uint8Array(length).fill(1 + random.below(255)), offset);
    }
  }
}

/** What an image shows. */
export async function contentOfImage(
  files: MemoryFiles,
  name: string,
  format: ImageFormat,
): Promise<Uint8Array> {
  await using image = await openImage(files.nameOf(name), { format, readOnly: true });
  const content = new Uint8Array(image.size);
  await image.read(content, 0);
  return content;
}

/** What the uppermost image shows. */
export function contentOfTop({ images }: ChainWorkload, files: MemoryFiles): Promise<Uint8Array> {
  const { name, format } = images.at(-1)!;
  return contentOfImage(files, name, format);
}

/** The base shows what the image shows, which holds nothing any more. */
function committed(base: string, format: ImageFormat): NonNullable<ChainWorkload['expect']> {
  return async (files, content) => {
    const below = await contentOfImage(files, base, format);
    assert.ok(Buffer.compare(below.subarray(0, content.length), content) === 0, 'the base differs');
    await using image = await openImage(files.nameOf('top'), { readOnly: true });
    for await (const { depth, present } of image.map()) assert.ok(depth > 0 || !present);
  };
}

const top = (backing: string, options: CreateOptions = {}): ChainImage => ({
  name: 'top',
  format: 'qcow2',
  size: 96 * kib,
  options: { clusterSize: 4096, ...options },
  backing,
  requests: 12,
});

const base: ChainImage = {
  name: 'base',
  format: 'qcow2',
  size: 96 * kib,
  options: { clusterSize: 1024 },
  requests: 10,
};

async function commitOpen(files: MemoryFiles): Promise<void> {
  await using image = await openImage(files.nameOf('top'));
  await commit(image);
}

const longName = `a name that does not fit into the first sector with the others ${'.'.repeat(400)}`;

/** Every workload. */
export const chainWorkloads: readonly ChainWorkload[] = [
  {
    name: 'commit into a shorter raw disk',
    images: [
      { name: 'base', format: 'raw', size: 40 * kib, requests: 5 },
      top('base', { clusterSize: 512, refcountBits: 64 }),
    ],
    run: (files) => commit(files.nameOf('top')),
    expect: committed('base', 'raw'),
  },
  {
    name: 'commit into an image that holds other data',
    images: [base, top('base')],
    run: (files) => commit(files.nameOf('top')),
    expect: committed('base', 'qcow2'),
  },
  {
    name: 'commit of an image with lazy refcounts and subclusters',
    images: [base, top('base', { clusterSize: 16384, lazyRefcounts: true, extendedL2: true })],
    run: (files) => commit(files.nameOf('top')),
    expect: committed('base', 'qcow2'),
  },
  {
    name: 'commit into the root of a chain',
    images: [
      { ...base, size: 32 * kib },
      { ...base, name: 'middle', size: 64 * kib, backing: 'base' },
      top('middle', { compat: '0.10' }),
    ],
    run: (files) => commit(files.nameOf('top'), { base: files.nameOf('base') }),
  },
  {
    name: 'commit of an image that stays open',
    images: [{ ...base, size: 64 * kib }, top('base', { compat: '0.10' })],
    run: commitOpen,
    expect: committed('base', 'qcow2'),
  },
  {
    name: 'commit of an image with a snapshot that stays open',
    images: [base, top('base', { clusterSize: 512 })],
    isDoneAgain: true,
    run: async (files) => {
      await using image = await openImage(files.nameOf('top'));
      const known = await image.snapshots.list();
      if (known.length === 0) await image.snapshots.create('then');
      await commit(image);
    },
    expect: committed('base', 'qcow2'),
  },
  {
    name: 'rebase onto another image',
    images: [base, { ...base, name: 'other', size: 64 * kib }, top('base')],
    run: (files) =>
      rebase(files.nameOf('top'), { backing: files.nameOf('other'), backingFormat: 'qcow2' }),
  },
  {
    name: 'rebase onto an image with a long name',
    images: [base, { ...base, name: longName, size: 64 * kib }, top('base')],
    run: (files) =>
      rebase(files.nameOf('top'), { backing: files.nameOf(longName), backingFormat: 'qcow2' }),
  },
  {
    name: 'rebase from an image with a long name onto nothing',
    images: [{ ...base, name: longName }, top(longName, { compat: '0.10' })],
    run: (files) => rebase(files.nameOf('top'), { backing: '' }),
  },
  {
    name: 'commit into a shorter QED image',
    images: [{ name: 'base', format: 'qed', size: 40 * kib, requests: 5 }, top('base')],
    run: (files) => commit(files.nameOf('top')),
    expect: committed('base', 'qed'),
  },
  {
    name: 'rebase of a QED image onto one with a long name',
    images: [
      base,
      { ...base, name: longName, size: 64 * kib },
      { ...top('base', { clusterSize: 4096 }), format: 'qed' },
    ],
    run: (files) =>
      rebase(files.nameOf('top'), { backing: files.nameOf(longName), backingFormat: 'qcow2' }),
  },
  {
    name: 'rebase onto an image of the chain, compressed',
    images: [
      { ...base, size: 128 * kib },
      { ...base, name: 'middle', size: 64 * kib, backing: 'base' },
      top('middle', { clusterSize: 16384, extendedL2: true }),
    ],
    run: (files) =>
      rebase(files.nameOf('top'), {
        backing: files.nameOf('base'),
        backingFormat: 'qcow2',
        compress: true,
      }),
  },
];
