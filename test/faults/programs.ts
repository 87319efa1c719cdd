/** What a program does with image files, from the first open to the last close. */
import { copyFile, readFile } from 'node:fs/promises';
import path from 'node:path';
import { CowherdError } from '../../src/errors.js';
import { attachImage } from '../../src/image/threads/attach.js';
import type { OpenImageOptions } from '../../src/image/api/options.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { openPool } from '../../src/image/threads/pool.js';
import { compare } from '../../src/jobs/compare.js';
import { convert } from '../../src/jobs/convert.js';

/** A program. */
export interface Program {
  readonly name: string;
  /** Runs it on the files in a folder. */
  readonly run: (folder: string) => Promise<void>;
}

const kib = 1024;
const clusterSize = 4 * kib;
const imageSize = 256 * kib;
/** What lies in the image, and no program changes. */
const kept = { offset: 64 * kib, length: 12 * kib };

/** Files that every run begins with. */
const fileNames = ['disk.qcow2', 'base.raw', 'disk.data', 'external.qcow2', 'leaky.qcow2'];

/** Makes them. */
export async function makeFiles(folder: string): Promise<void> {
  const at = (name: string): string => path.join(folder, name);
  await createImage(at('base.raw'), { format: 'raw', size: imageSize });
  const base = await openImage(at('base.raw'), { format: 'raw' });
  await base.write(bytes(1, 100 * kib), 0);
  await base.close();
  const size = imageSize;
  const backing = { backingFile: 'base.raw', backingFormat: 'raw' } as const;
  const common = { format: 'qcow2', size, clusterSize } as const;
  await createImage(at('disk.qcow2'), { ...common, ...backing, lazyRefcounts: true });
  // A name without a folder is looked for beside the image, but made in the working directory.
  const workingFolder = process.cwd();
  process.chdir(folder);
  try {
    await createImage(at('external.qcow2'), { ...common, dataFile: 'disk.data' });
  } finally {
    process.chdir(workingFolder);
  }
  await createImage(at('leaky.qcow2'), common);
  for (const name of ['disk.qcow2', 'external.qcow2', 'leaky.qcow2']) {
    const image = await openImage(at(name));
    await image.write(bytes(2, kept.length), kept.offset);
    if (name !== 'external.qcow2') await image.writeCompressed(bytes(3, clusterSize), 200 * kib);
    await image.close();
  }
  const leaky = await openImage(at('leaky.qcow2'));
  await leaky.write(bytes(4, 20 * kib), 0);
  await leaky.flush();
  // As a program that was killed leaves it: with what it had reserved.
  await copyFile(at('leaky.qcow2'), at('killed.qcow2'));
  await leaky.close();
  await copyFile(at('killed.qcow2'), at('leaky.qcow2'));
}

/** Puts the files that every run begins with into another folder. */
export async function copyFiles(from: string, to: string): Promise<void> {
  await Promise.all(fileNames.map((name) => copyFile(path.join(from, name), path.join(to, name))));
}

function bytes(value: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Reads what no program changes. @throws if it has changed */
export async function expectKept(folder: string): Promise<void> {
  for (const name of ['disk.qcow2', 'external.qcow2', 'leaky.qcow2']) {
    const image = await openImage(path.join(folder, name));
    try {
      const found = new Uint8Array(kept.length);
      await image.read(found, kept.offset);
      if (!found.every((byte) => byte === 2)) throw new Error(`'${name}' has lost its content`);
    } finally {
      await image.close();
    }
    const checked = await openImage(path.join(folder, name), { forCheck: true });
    const { corruptions, checkErrors } = await checked.check();
    await checked.close();
    if (corruptions + checkErrors > 0) throw new Error(`'${name}' is corrupt`);
  }
  const raw = await readFile(path.join(folder, 'base.raw'));
  if (raw[0] !== 1) throw new Error('the backing file was changed');
}

/** Requests of every kind. */
async function use(file: string, options: OpenImageOptions, compressed: boolean): Promise<void> {
  const image = await openImage(file, options);
  try {
    await image.write(bytes(5, 3 * kib), 9 * kib);
    await image.read(new Uint8Array(24 * kib), 0);
    await image.writeZeroes(20 * kib, 9 * kib, { unmap: true });
    if (compressed) {
      await Promise.all([
        image.writeCompressed(bytes(6, clusterSize), 32 * kib),
        image.writeCompressed(bytes(7, clusterSize), 36 * kib),
        image.read(new Uint8Array(clusterSize), 200 * kib),
      ]);
    }
    await image.flush();
    await image.discard(8 * kib, 16 * kib);
    await image.info();
    let mapped = 0;
    for await (const { length } of image.map()) mapped += length;
    if (mapped !== image.size) throw new Error(`only ${mapped} bytes are mapped`);
  } finally {
    await image.close();
  }
}

/** Every program. */
export const programs: readonly Program[] = [
  {
    name: 'requests, above a backing file',
    run: (folder) => use(path.join(folder, 'disk.qcow2'), {}, true),
  },
  {
    name: 'requests, with an external data file',
    run: (folder) => use(path.join(folder, 'external.qcow2'), {}, false),
  },
  {
    name: 'several queues',
    run: async (folder) => {
      const image = await openImage(path.join(folder, 'disk.qcow2'));
      try {
        const queues = [await image.openQueue(), await image.openQueue()];
        await Promise.all(
          queues.map((queue, index) => queue.write(bytes(8, 9 * kib), index * 9 * kib)),
        );
        await queues[0].close();
      } finally {
        await image.close();
      }
    },
  },
  {
    name: 'attaching',
    run: async (folder) => {
      const image = await openImage(path.join(folder, 'disk.qcow2'));
      try {
        const other = await attachImage(image.handle());
        try {
          await other.write(bytes(9, 5 * kib), 0);
        } finally {
          await other.close();
        }
      } finally {
        await image.close();
      }
    },
  },
  {
    name: 'a pool',
    run: async (folder) => {
      const pool = await openPool(path.join(folder, 'disk.qcow2'), { queues: 2, threads: 1 });
      try {
        await pool.write(bytes(10, 5 * kib), 0);
        await pool.read(new Uint8Array(3 * kib), 512);
        await pool.flush();
      } finally {
        await pool.close();
      }
    },
  },
  {
    name: 'creating',
    run: (folder) =>
      createImage(path.join(folder, 'new.qcow2'), {
        format: 'qcow2',
        size: imageSize,
        clusterSize,
        preallocation: 'full',
        dataFile: path.join(folder, 'new.data'),
      }),
  },
  {
    name: 'repairing',
    run: async (folder) => {
      const image = await openImage(path.join(folder, 'leaky.qcow2'), { forCheck: true });
      try {
        const { checkErrors, corruptions, failure } = await image.check({ repair: 'all' });
        if (failure !== undefined || checkErrors + corruptions > 0) {
          // It has been told, though not as an error.
          const { filename } = image;
          throw new CowherdError('ERR_COWHERD_IO', `'${filename}' is not repaired`, { filename });
        }
      } finally {
        await image.close();
      }
    },
  },
  {
    name: 'converting',
    run: (folder) =>
      convert(path.join(folder, 'disk.qcow2'), path.join(folder, 'copy.qcow2'), {
        to: 'qcow2',
        options: { clusterSize },
        queues: 2,
      }),
  },
  {
    name: 'converting, compressed',
    run: (folder) =>
      convert(path.join(folder, 'disk.qcow2'), path.join(folder, 'copy.qcow2'), {
        to: 'qcow2',
        compress: true,
        options: { clusterSize },
      }),
  },
  {
    name: 'comparing',
    run: async (folder) => {
      await compare(path.join(folder, 'disk.qcow2'), path.join(folder, 'base.raw'), {});
    },
  },
];
