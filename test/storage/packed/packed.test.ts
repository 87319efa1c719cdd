/** Packed files are read as what is packed in them, by names and in streams; what is damaged is told. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { convert } from '../../../src/jobs/convert.js';
import { openImage } from '../../../src/image/graph/open.js';
import { cowherdProgram, needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const mib = 1024 * 1024;

const qemuImg = (words: readonly string[], cwd: string): Promise<string> =>
  runOk('qemu-img', words, { cwd });
const packers = [
  { tool: 'gzip', suffix: '.gz' },
  { tool: 'xz', suffix: '.xz' },
  { tool: 'zstd', suffix: '.zst' },
  { tool: 'bzip2', suffix: '.bz2' },
] as const;

/** Data that packs badly, zeroes, and data that repeat; no whole number of sectors. */
function makeDisk(): Buffer {
  const disk = Buffer.alloc(3 * mib + 700);
  randomBytes(300_000).copy(disk, 4096);
  disk.fill('repeated ', 2 * mib, 2 * mib + 200_000);
  disk.fill(7, disk.length - 10);
  return disk;
}

const packedBy = (tool: string, bytes: Uint8Array): Buffer =>
  spawnSync(tool, ['-c'], { input: bytes, maxBuffer: 64 * mib }).stdout;

async function readAll(file: string): Promise<Buffer> {
  await using image = await openImage(file, { readOnly: true });
  const bytes = Buffer.alloc(image.size);
  await image.read(bytes, 0);
  return bytes;
}

for (const { tool, suffix } of packers) {
  test(`${tool}: raw disks and images are read through every way in`, async (t) => {
    if (!needsTool(t, tool) || !needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = (name: string): string => path.join(folder, name);
    const disk = makeDisk();
    const whole = Buffer.concat([disk, Buffer.alloc(512 - (disk.length % 512))]);
    await writeFile(file('disk.raw'), disk);
    await qemuImg(['convert', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'], folder);
    const cut = 1_000_001;
    // Two members, one after the other, are one file.
    const members = [disk.subarray(0, cut), disk.subarray(cut)].map((part) => packedBy(tool, part));
    await writeFile(file(`disk.raw${suffix}`), Buffer.concat(members));
    const packedQcow2 = packedBy(tool, await readFile(file('disk.qcow2')));
    await writeFile(file(`disk.qcow2${suffix}`), packedQcow2);
    for (const name of [`disk.raw${suffix}`, `disk.qcow2${suffix}`]) {
      assert.ok((await readAll(file(name))).equals(whole), name);
      for (const to of ['raw', 'qcow2', 'vdi']) {
        const target = file(`target.${to}`);
        await convert(file(name), target, { to });
        await qemuImg(['compare', '-f', to, '-F', 'raw', target, 'disk.raw'], folder);
      }
      const options = { readOnly: true, unpack: false, format: 'raw' };
      await using plain = await openImage(file(name), options);
      const begin = Buffer.alloc(512);
      await plain.read(begin, 0);
      assert.ok(begin.equals((await readFile(file(name))).subarray(0, 512)), 'as it is');
    }
    await assert.rejects(
      openImage(file(`disk.raw${suffix}`)),
      (error: Error) =>
        error.message === `'${file(`disk.raw${suffix}`)}' is packed (${tool}): it can only be read`,
    );
  });

  test(`${tool}: what is cut off or damaged is told in one line, and nothing is left`, async (t) => {
    if (!needsTool(t, tool)) return;
    const folder = await temporaryFolder(t);
    const packed = packedBy(tool, makeDisk());
    const turned = Buffer.from(packed);
    turned[Math.floor(packed.length / 2)] ^= 0x10;
    for (const bytes of [packed.subarray(0, packed.length / 2), turned]) {
      const name = `broken.raw${suffix}`;
      await writeFile(path.join(folder, name), bytes);
      for (const [words, input] of [
        [['convert', '-O', 'qcow2', name, 'out'], undefined],
        [['convert', '-O', 'qcow2', '-', 'out'], bytes],
        [['info', name], undefined],
      ] as const) {
        const { code, stderr } = await run(process.execPath, [cowherdProgram, ...words], {
          cwd: folder,
          ...(input !== undefined && { input }),
        });
        assert.equal(code, 1, words.join(' '));
        assert.match(stderr, new RegExp(`^cowherd: [^\\n]*unpacked \\(${tool}\\): [^\\n]+\\n$`));
        assert.deepEqual(await readdir(folder), [name]);
      }
    }
  });
}

test('a name alone makes no file packed', async (t) => {
  const folder = await temporaryFolder(t);
  for (const bytes of [Buffer.alloc(0), Buffer.from([0x1f]), Buffer.alloc(1024, 1)]) {
    const file = path.join(folder, 'disk.gz');
    await writeFile(file, bytes);
    await using image = await openImage(file);
    assert.equal(image.size, Math.ceil(bytes.length / 512) * 512);
  }
});
