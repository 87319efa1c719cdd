/**
 * Races cowherd against qemu-img, case by case; prints a table and leaves it as JSON and as a
 * picture in `bench/results`. With `--micro` it measures parts of the engine by themselves instead.
 *
 *     npm run bench -- [--group NAME,NAME] [--only TEXT] [--folder PATH]
 *     npm run bench -- --micro [--only TEXT] [--seconds N]
 *
 * Only cases of the groups whose name contains TEXT are run, and only their results replaced; files
 * are made in PATH (80 GiB of address space, some 12 GiB of blocks), by default a temporary folder.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments } from '../scripts/arguments.js';
import { chainDuels } from './cases/chains.js';
import { changeDuels } from './cases/changes.js';
import { convertDuels } from './cases/convert.js';
import { encryptionDuels } from './cases/encryption.js';
import { formatDuels } from './cases/formats.js';
import { memoryDuels } from './cases/memory.js';
import { metadataDuels } from './cases/metadata.js';
import { queueDuels } from './cases/queues.js';
import { requestDuels } from './cases/requests.js';
import { serveDuels } from './cases/serve.js';
import { vhostUserDuels } from './cases/vhost-user.js';
import { type Duel, type Outcome, fight, median, processorOutcome } from './duel.js';
import { microLine, runMicroBenchmarks } from './micro.js';
import { takeNode } from './programs.js';
import { picture, tableLine } from './report.js';

const values = readArguments(
  'Races cowherd against qemu-img (groups requests, queues, convert, chains, changes, formats, encryption, serve, vhost-user, metadata, memory); with --micro\n' +
    'measures parts of the engine by themselves.',
  {
    group: { type: 'string' },
    only: { type: 'string', default: '' },
    folder: { type: 'string' },
    micro: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '2' },
  },
);
const results = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  '..',
  '..',
  'bench',
  'results',
);
const groups: readonly (readonly [string, (folder: string) => Promise<Duel[]>])[] = [
  ['requests', requestDuels],
  ['queues', queueDuels],
  ['convert', convertDuels],
  ['chains', chainDuels],
  ['changes', changeDuels],
  ['formats', formatDuels],
  ['encryption', encryptionDuels],
  ['serve', serveDuels],
  ['vhost-user', vhostUserDuels],
  ['metadata', metadataDuels],
  ['memory', memoryDuels],
];

if (values.micro) {
  await runMicroBenchmarks(values.only, Number(values.seconds), (outcome) => {
    console.log(microLine(outcome));
  });
} else {
  await race();
}

async function race(): Promise<void> {
  const place = values.folder ?? tmpdir();
  await mkdir(place, { recursive: true });
  const folder = await mkdtemp(path.join(place, 'cowherd-bench-'));
  const isWhole = values.group === undefined && values.only === '';
  const known = isWhole ? [] : await lastResults();
  const starts: number[] = [];
  while (starts.length < 9) starts.push((await takeNode()).processorSeconds);
  const node = median(starts);
  const outcomes: Outcome[] = [];
  try {
    for (const [name, prepare] of groups) {
      if (values.group !== undefined && !values.group.split(',').includes(name)) continue;
      for (const duel of await prepare(folder)) {
        if (!duel.name.includes(values.only)) continue;
        const outcome = await fightOrTell(duel);
        if (outcome === undefined) continue;
        outcomes.push(outcome);
        console.log(tableLine(outcome));
        const processor =
          duel.countsProcessor === true ? processorOutcome(outcome, node) : undefined;
        if (processor !== undefined) {
          outcomes.push(processor);
          console.log(tableLine(processor));
        }
        await writeResults(known, outcomes);
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** @returns undefined, with a line about it, if one of them failed; the other duels are fought all the same */
async function fightOrTell(duel: Duel): Promise<Outcome | undefined> {
  try {
    return await fight(duel);
  } catch (error) {
    process.exitCode = 1;
    console.error(`${duel.name}: ${String(error)}`);
    return undefined;
  }
}

/**
 * Leaves what is known so far, so that a run that is cut off was not in vain; what this run leaves
 * out stays as the last one found it.
 */
async function writeResults(
  known: readonly Outcome[],
  outcomes: readonly Outcome[],
): Promise<void> {
  const place = path.join(results, 'results.json');
  await mkdir(results, { recursive: true });
  const all = new Map(known.map((outcome) => [outcome.name, outcome]));
  for (const outcome of outcomes) all.set(outcome.name, outcome);
  const merged = [...all.values()];
  await writeFile(place, `${JSON.stringify(merged, null, 2)}\n`);
  await writeFile(path.join(results, 'results.svg'), picture(merged));
}

async function lastResults(): Promise<Outcome[]> {
  try {
    return JSON.parse(await readFile(path.join(results, 'results.json'), 'utf8')) as Outcome[];
  } catch {
    return [];
  }
}
