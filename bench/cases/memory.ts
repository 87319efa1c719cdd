/** Peak memory of the long commands, above what Node itself takes. */
import path from 'node:path';
import type { Duel } from '../duel.js';
import { peakMemory, timeQemu } from '../programs.js';

const boundMib = 200;

/** One duel a command, against the bound; the files are those of the other cases. */
export async function memoryDuels(folder: string): Promise<Duel[]> {
  const metadata = path.join(folder, 'metadata.qcow2');
  const files = path.join(folder, 'files.raw');
  const half = path.join(folder, 'half.raw');
  const target = path.join(folder, 'target');
  await timeQemu('info', metadata);
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
