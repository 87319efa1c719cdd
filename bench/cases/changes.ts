/** What changes an image of 1 TiB with all its metadata, against qemu-img; and what has to be done at once. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { withMetadata } from '../disks.js';
import type { Duel } from '../duel.js';
import { settle, takeCowherd, takeNode, timeCowherd, timeQemu } from '../programs.js';

/** Seconds beyond Node's start within which small things are done. */
const atOnce = 0.15;

/** Duels over images that are made anew for each run. */
export async function changeDuels(folder: string): Promise<Duel[]> {
  const image = path.join(folder, 'changed.qcow2');
  const make = async (): Promise<void> => {
    await rm(image, { force: true });
    await timeCowherd('create', '-q', ...withMetadata, image, '1T');
    await settle();
  };
  const duel = (name: string, goal: number, ...words: readonly string[]): Duel => {
    const run = async (time: typeof timeQemu): Promise<number> => {
      await make();
      return await time(...words, image);
    };
    return {
      ...{ name: `${name} of 1 TiB of metadata`, unit: 's', goal },
      ours: { label: 'cowherd', run: () => run(timeCowherd) },
      peer: { label: 'qemu-img', run: () => run(timeQemu) },
    };
  };
  const small = path.join(folder, 'small-changed.qcow2');
  await rm(small, { force: true });
  await timeQemu('create', '-q', '-f', 'qcow2', small, '1G');
  await timeQemu('snapshot', '-c', 'first', small);
  return [
    duel('snapshot -c', 3, 'snapshot', '-c', 'first'),
    duel('amend -o refcount_bits=64', 2, 'amend', '-q', '-f', 'qcow2', '-o', 'refcount_bits=64'),
    duel('amend -o refcount_bits=8', 2, 'amend', '-q', '-f', 'qcow2', '-o', 'refcount_bits=8'),
    beyondStart('resize', 'resize', '-q', small, '+64k'),
    beyondStart('measure', 'measure', '-O', 'qcow2', small),
    beyondStart('snapshot -l', 'snapshot', '-l', small),
  ];
}

/** What a command takes by the clock when Node has started. */
function beyondStart(name: string, ...words: readonly string[]): Duel {
  return {
    ...{ name: `${name}: seconds beyond Node’s start, of ${atOnce}`, unit: 's' },
    ...{ goal: 1, rounds: 15 },
    ours: {
      label: 'cowherd',
      run: async () => {
        const { seconds: start } = await takeNode();
        return (await takeCowherd(...words)).seconds - start;
      },
    },
    peer: { label: 'the bound', run: () => Promise.resolve(atOnce) },
  };
}
