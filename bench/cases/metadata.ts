/** Reports and creation of an 8 TiB image with all its metadata, against qemu-img. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { makeMetadata, withMetadata } from '../disks.js';
import type { Duel } from '../duel.js';
import { settle, takeCowherd, takeNode, timeCowherd, timeQemu } from '../programs.js';

/** Duels over an 8 TiB image, which is made anew by each side of the one that creates it. */
export async function metadataDuels(folder: string): Promise<Duel[]> {
  const image = path.join(folder, 'metadata.qcow2');
  await makeMetadata(image);
  const created = path.join(folder, 'created.qcow2');
  const create = async (time: typeof timeQemu): Promise<number> => {
    await rm(created, { force: true });
    await settle();
    const seconds = await time('create', '-q', ...withMetadata, created, '8T');
    await rm(created, { force: true });
    return seconds;
  };
  const report = (name: string, words: readonly string[], ours: readonly string[] = []): Duel => ({
    name,
    unit: 's',
    goal: 3,
    ours: { label: 'cowherd', run: () => timeCowherd(...words, ...ours, image) },
    peer: { label: 'qemu-img', run: () => timeQemu(...words, image) },
  });
  return [
    await infoDuel(folder),
    report('check of 8 TiB of metadata', ['check', '-q']),
    report('check of 8 TiB of metadata, 2 queues', ['check', '-q'], ['--queues', '2']),
    report('map of 8 TiB of metadata', ['map', '--output=json']),
    {
      name: 'create 8 TiB with metadata',
      unit: 's',
      goal: 3,
      ours: { label: 'cowherd', run: () => create(timeCowherd) },
      peer: { label: 'qemu-img', run: () => create(timeQemu) },
    },
  ];
}

/** What the program costs that does nearly nothing. */
async function infoDuel(folder: string): Promise<Duel> {
  const image = path.join(folder, 'info.qcow2');
  await timeQemu('create', '-q', '-f', 'qcow2', image, '1G');
  return {
    name: 'info: processor seconds beyond Node’s start, of 0.03',
    unit: 's',
    goal: 1,
    rounds: 15,
    ours: {
      label: 'cowherd',
      run: async () => {
        const { processorSeconds: start } = await takeNode();
        return (await takeCowherd('info', image)).processorSeconds - start;
      },
    },
    peer: { label: 'the bound', run: () => Promise.resolve(0.03) },
  };
}
