/** Peak memory of the long commands, above what Node itself takes. */
import { access } from 'node:fs/promises';
import path from 'node:path';
import { filesMib, halfFullMib, makeHalfFull, makeMetadata, makeOfFiles } from '../disks.js';
import type { Duel } from '../duel.js';
import { peakMemory } from '../programs.js';

const boundMib = 200;

/** One duel a command, against the bound; files that other cases have made are used again. */
export async function memoryDuels(folder: string): Promise<Duel[]> {
  const metadata = path.join(folder, 'metadata.qcow2');
  const files = path.join(folder, 'files.raw');
  const half = path.join(folder, 'half.raw');
  const target = path.join(folder, 'target');
  await unlessThere(metadata, () => makeMetadata(metadata));
  await unlessThere(files, () => makeOfFiles(files, filesMib));
  await unlessThere(half, () => makeHalfFull(half, halfFullMib));
  const bare = await peakMemory();
  const commands: readonly (readonly [string, readonly string[]])[] = [
    ['check of 8 TiB', ['check', '-q', metadata]],
    ['map of 8 TiB', ['map', '--output=json', metadata]],
    ['convert 4 GiB', ['convert', '-f', 'raw', '-O', 'qcow2', half, target]],
    ['compress 1 GiB', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', files, target]],
  ];
  return commands.map(([name, parameters]) => ({
    name: `peak MiB above Node’s own: ${name}`,
    unit: 's',
    goal: 1,
    rounds: 1,
    ours: { label: 'cowherd', run: async () => (await peakMemory(...parameters)) - bare },
    peer: { label: 'the bound', run: () => Promise.resolve(boundMib) },
  }));
}

async function unlessThere(file: string, make: () => Promise<unknown>): Promise<void> {
  const there = await access(file).then(
    () => true,
    () => false,
  );
  if (!there) await make();
}
