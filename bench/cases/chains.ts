/** Committing and rebasing images of which half is there, against qemu-img. */
import { copyFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { halfFullMib, makeHalfFull } from '../disks.js';
import type { Duel } from '../duel.js';
import { settle, timeCowherd, timeQemu } from '../programs.js';

/** Duels over chains that are made anew for each run. */
export async function chainDuels(folder: string): Promise<Duel[]> {
  const inFolder = (name: string): string => path.join(folder, `chains-${name}`);
  const [raw, full, base, top] = ['half.raw', 'half.qcow2', 'base', 'top'].map(inFolder);
  await makeHalfFull(raw, halfFullMib);
  await timeQemu('convert', '-f', 'raw', '-O', 'qcow2', raw, full);
  await rm(raw);
  const size = `${halfFullMib}M`;
  const makeOverlay = (below: string, image: string): Promise<number> =>
    timeQemu('create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', image);
  const committing = async (time: typeof timeQemu): Promise<number> => {
    await timeQemu('create', '-q', '-f', 'qcow2', base, size);
    await copyFile(full, top);
    await timeQemu('rebase', '-u', '-b', base, '-F', 'qcow2', top);
    await settle();
    return await time('commit', '-q', '-f', 'qcow2', top);
  };
  const rebasing = async (time: typeof timeQemu): Promise<number> => {
    await rm(top, { force: true });
    await makeOverlay(full, top);
    await settle();
    return await time('rebase', '-f', 'qcow2', '-b', '', top);
  };
  const duel = (name: string, run: (time: typeof timeQemu) => Promise<number>): Duel => ({
    name,
    unit: 's',
    goal: 1.2,
    ours: { label: 'cowherd', run: () => run(timeCowherd) },
    peer: { label: 'qemu-img', run: () => run(timeQemu) },
  });
  return [
    duel('commit 4 GiB half full', committing),
    duel('rebase 4 GiB half full onto nothing', rebasing),
  ];
}
