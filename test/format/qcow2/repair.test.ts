/**
 * Checking and repairing damaged images as the real tool does: for each of many corruptions the same
 * findings, counts and exit codes, and afterwards an image the real tool finds nothing wrong with,
 * whose guest data is what it was.
 */
import assert from 'node:assert/strict';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import {
  type Corruption,
  type CorruptionBase,
  DamagedImage,
  type Run,
  corruptions,
} from '../../support/corruptions.js';
import type { RunResult } from '../../support/tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const image = 'image.qcow2';
const external = 'external.data';

async function makeBase(base: CorruptionBase, folder: string): Promise<void> {
  for (const step of base.steps) {
    if (typeof step === 'string') await runOk('qemu-io', ['-c', step, image], { cwd: folder });
    else {
      const words = step.map((word) => (word === 'IMAGE' ? image : word));
      await runOk('qemu-img', words, { cwd: folder });
    }
  }
}

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
    const file = path.join(folder, image);
    await copyFile(path.join(this.base, image), file);
    if (this.corruption.base.name === 'external') {
      await copyFile(path.join(this.base, external), path.join(folder, external));
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
  const words = ['convert', '-O', 'raw', image, raw];
  const { code } = await run('qemu-img', words, { cwd: folder, timeoutMs: 20_000 });
  if (code !== 0) return undefined;
  return runOk('sha256sum', [raw]).then((line) => line.split(' ')[0]);
}

const runs: readonly { readonly run: Run; readonly words: readonly string[] }[] = [
  { run: 'check', words: ['check', image] },
  { run: 'check', words: ['check', '--output=json', image] },
  { run: 'leaks', words: ['check', '-r', 'leaks', image] },
  { run: 'leaks', words: ['check', '-r', 'leaks', '--output=json', image] },
  { run: 'all', words: ['check', '-r', 'all', image] },
  { run: 'all', words: ['check', '-r', 'all', '--output=json', image] },
];

test('each corruption is found and repaired as the real tool does it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const bases = new Map<string, string>();
  for (const [index, corruption] of corruptions.entries()) {
    await t.test(corruption.name, async () => {
      const { name } = corruption.base;
      if (!bases.has(name)) {
        const made = path.join(folder, name);
        await mkdir(made);
        await makeBase(corruption.base, made);
        bases.set(name, made);
      }
      const own = path.join(folder, String(index));
      await mkdir(own);
      const copies = new Copies(own, bases.get(name)!, corruption);
      for (const { run: which, words } of runs) await compareRun(corruption, copies, which, words);
      await compareRepaired(corruption, copies);
    });
  }
});

async function compareRun(
  corruption: Corruption,
  copies: Copies,
  which: Run,
  words: readonly string[],
): Promise<void> {
  const theirs = await copies.make();
  const ours = await copies.make();
  const expected = await runQemuImg(words, theirs);
  const actual = await runCowherd(words, ours);
  const extent = corruption.exceptions?.[which]?.compared ?? 'all';
  const kept = ({ stdout, stderr, code }: RunResult): unknown => {
    if (extent === 'all') return { stdout, stderr, code };
    return extent === 'counts' ? { stdout, code } : { code };
  };
  if (extent !== 'nothing') assert.deepEqual(kept(actual), kept(expected), words.join(' '));
}

/** After a repair of ours the real tool finds nothing, if one of its own can achieve that. */
async function compareRepaired(corruption: Corruption, copies: Copies): Promise<void> {
  const before = await guestContent(await copies.make());
  const theirs = await copies.make();
  const ours = await copies.make();
  const words = ['check', '-r', 'all', image];
  const expected = await runQemuImg(words, theirs);
  await runCowherd(words, ours);
  const { code, stdout, stderr } = await runQemuImg(['check', image], ours);
  if (expected.code === 0) assert.equal(code, 0, stdout + stderr);
  const after = await guestContent(ours);
  if (before !== undefined && corruption.touchesGuestData !== true) {
    assert.equal(after, before, 'guest data');
  }
  if (code !== 0 || expected.code !== 0) return;
  // What is sound can be written to, and stays as sound as what the real tool has repaired.
  const write = ['-c', 'write -P 0x77 96k 16k', image];
  await runOk('qemu-io', write, { cwd: theirs });
  await runOk('qemu-io', write, { cwd: ours });
  const theirLast = await runQemuImg(['check', image], theirs);
  const last = await runQemuImg(['check', image], ours);
  assert.equal(last.code, theirLast.code, last.stdout + last.stderr);
}
