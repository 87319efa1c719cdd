/**
 * Checking and repairing damaged images as the real tool does: for each of many corruptions the same
 * findings, counts and exit codes, and afterwards an image the real tool finds nothing wrong with,
 * whose guest data is what it was.
 */
import assert from 'node:assert/strict';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd, runQemuImg } from '../../../support/both-tools.js';
import {
  type Corruption,
  DamagedImage,
  type Run,
  corruptions,
} from '../../../support/corruptions.js';
import { CorruptionBases, externalName, imageName } from '../../../support/corruption-bases.js';
import type { RunResult } from '../../../support/tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../../support/tools.js';

/** Gives each run a folder of its own with the damaged image. */
class Copies {
  #count = 0;

  constructor(
    private readonly folder: string,
    private readonly base: string,
    private readonly corruption: Corruption,
  ) {}

  async make(): Promise<string> {
    const folder = path.join(this.folder, `copy${this.#count++}`);
    await mkdir(folder);
    const file = path.join(folder, imageName);
    await copyFile(path.join(this.base, imageName), file);
    if (this.corruption.base.name === 'external') {
      await copyFile(path.join(this.base, externalName), path.join(folder, externalName));
    }
    const damaged = new DamagedImage(file);
    this.corruption.damage(damaged);
    await writeFile(file, damaged.bytes);
    return folder;
  }
}

/** What the guest reads, if the real tool can read all of it. */
async function guestContent(folder: string): Promise<string | undefined> {
  const raw = path.join(folder, 'content.raw');
  const words = ['convert', '-O', 'raw', imageName, raw];
  const { code } = await run('qemu-img', words, { cwd: folder, timeoutMs: 20_000 });
  if (code !== 0) return undefined;
  return runOk('sha256sum', [raw]).then((line) => line.split(' ')[0]);
}

const runs: readonly { readonly run: Run; readonly words: readonly string[] }[] = [
  { run: 'check', words: ['check', imageName] },
  { run: 'check', words: ['check', '--output=json', imageName] },
  { run: 'leaks', words: ['check', '-r', 'leaks', imageName] },
  { run: 'all', words: ['check', '-r', 'all', '--output=json', imageName] },
];

test('each corruption is found and repaired as the real tool does it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const bases = new CorruptionBases(folder);
  for (const [index, corruption] of corruptions.entries()) {
    await t.test(corruption.name, async () => {
      const own = path.join(folder, String(index));
      await mkdir(own);
      const copies = new Copies(own, await bases.folderOf(corruption.base), corruption);
      for (const { run: which, words } of runs) await compareRun(corruption, copies, which, words);
      const before = await guestContent(await copies.make());
      const repaired = await compareRun(corruption, copies, 'all', [
        'check',
        '-r',
        'all',
        imageName,
      ]);
      await compareRepaired(repaired, corruption.touchesGuestData === true ? undefined : before);
    });
  }
});

/** What became of one run by each program. */
interface Compared {
  readonly theirs: string;
  readonly ours: string;
  readonly expected: RunResult;
}

async function compareRun(
  corruption: Corruption,
  copies: Copies,
  which: Run,
  words: readonly string[],
): Promise<Compared> {
  const theirs = await copies.make();
  const ours = await copies.make();
  const [expected, actual] = await Promise.all([
    runQemuImg(words, theirs),
    runCowherd(words, ours),
  ]);
  const extent = corruption.exceptions?.[which]?.compared ?? 'all';
  const kept = ({ stdout, stderr, code }: RunResult): unknown => {
    if (extent === 'all') return { stdout, stderr, code };
    return extent === 'counts' ? { stdout, code } : { code };
  };
  if (extent !== 'nothing') assert.deepEqual(kept(actual), kept(expected), words.join(' '));
  return { theirs, ours, expected };
}

/** After a repair of ours the real tool finds nothing, if one of its own can achieve that. */
async function compareRepaired(
  { theirs, ours, expected }: Compared,
  before: string | undefined,
): Promise<void> {
  const { code, stdout, stderr } = await runQemuImg(['check', imageName], ours);
  if (expected.code === 0) assert.equal(code, 0, stdout + stderr);
  if (before !== undefined) assert.equal(await guestContent(ours), before, 'guest data');
  if (code !== 0 || expected.code !== 0) return;
  // What is sound can be written to, and stays as sound as what the real tool has repaired.
  const write = ['-c', 'write -P 0x77 96k 16k', imageName];
  await runOk('qemu-io', write, { cwd: ours });
  const last = await runQemuImg(['check', imageName], ours);
  if (last.code === 0) return;
  await runOk('qemu-io', write, { cwd: theirs });
  const theirLast = await runQemuImg(['check', imageName], theirs);
  assert.equal(last.code, theirLast.code, last.stdout + last.stderr);
}
