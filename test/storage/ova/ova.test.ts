/** Disks within OVAs, made by the real tar, read in place. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openPool } from '../../../src/image/threads/pool.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const description = `<?xml version="1.0"?>
<Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References>
    <File ovf:href="first.qcow2" ovf:id="file1" ovf:size="1"/>
    <ovf:File ovf:id='file2' ovf:href='a folder/second disk.qcow2' />
    <File ovf:href="notes.txt" ovf:id="file3"/>
  </References>
  <DiskSection>
    <Disk ovf:capacity="4" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
    <Disk ovf:capacity="4" ovf:diskId="vmdisk2" ovf:fileRef="file2"/>
  </DiskSection>
</Envelope>
`;

/** A folder with two disks, raw and as qcow2, and an OVA of the latter by tar in one of its formats. */
async function makeOva(t: TestContext, format: string): Promise<string> {
  const folder = await temporaryFolder(t);
  await runOk('mkdir', [path.join(folder, 'a folder')]);
  for (const [index, name] of ['first', 'a folder/second disk'].entries()) {
    const bytes = Uint8Array.from({ length: 4 << 20 }, (_, at) =>
      at % (2 << 20) < 1 << 20 ? 0 : (at >> (8 + index)) & 0xff,
    );
    await writeFile(path.join(folder, `${index}.raw`), bytes);
    const words = ['convert', '-f', 'raw', '-O', 'qcow2', `${index}.raw`, `${name}.qcow2`];
    assert.equal((await runCowherd(words, folder)).code, 0);
  }
  await writeFile(path.join(folder, 'vm.ovf'), description);
  await writeFile(path.join(folder, 'notes.txt'), 'notes');
  const members = ['vm.ovf', 'first.qcow2', 'notes.txt', 'a folder/second disk.qcow2'];
  await runOk('tar', [`--format=${format}`, '-cf', 'vm.ova', ...members], { cwd: folder });
  return folder;
}

for (const format of ['ustar', 'gnu', 'pax', 'v7']) {
  test(`disks of an OVA are read in place: ${format}`, async (t) => {
    if (!needsTool(t, 'tar')) return;
    const folder = await makeOva(t, format);
    for (const [name, raw] of [
      ['ova:vm.ova#first.qcow2', '0.raw'],
      ['ova:vm.ova#vmdisk1', '0.raw'],
      ['ova:vm.ova#file2', '1.raw'],
      ['ova:vm.ova#a folder/second disk.qcow2', '1.raw'],
    ]) {
      const same = await runCowherd(['compare', name, raw], folder);
      assert.equal(same.code, 0, `${name}: ${same.stderr}`);
      await runCowherd(['convert', '-O', 'raw', name, 'out.raw'], folder);
      const [out, expected] = await Promise.all(
        ['out.raw', raw].map((each) => readFile(path.join(folder, each))),
      );
      assert.equal(Buffer.compare(out, expected), 0);
    }
    const pool = await openPool(`ova:${path.join(folder, 'vm.ova')}#vmdisk2`, {
      readOnly: true,
      queues: 2,
    });
    t.after(() => pool.close());
    const bytes = new Uint8Array(4 << 20);
    await pool.read(bytes, 0);
    assert.equal(Buffer.compare(bytes, await readFile(path.join(folder, '1.raw'))), 0);
  });
}

test('long names, and what cannot be opened is told in one line', async (t) => {
  if (!needsTool(t, 'tar')) return;
  const folder = await makeOva(t, 'gnu');
  const long = `${'long '.repeat(30)}.qcow2`;
  await runOk('cp', ['first.qcow2', long], { cwd: folder });
  for (const format of ['gnu', 'pax']) {
    await runOk('tar', [`--format=${format}`, '-cf', 'long.ova', long], { cwd: folder });
    const same = await runCowherd(['compare', `ova:long.ova#${long}`, '0.raw'], folder);
    assert.equal(same.code, 0, same.stderr);
  }
  const whole = await readFile(path.join(folder, 'vm.ova'));
  await writeFile(path.join(folder, 'cut.ova'), whole.subarray(0, 100_000));
  const wrong = Buffer.from(whole);
  wrong[20] ^= 1;
  await writeFile(path.join(folder, 'wrong.ova'), wrong);
  for (const [name, expected] of [
    ['ova:vm.ova', /several disks, ova:FILE#DISK names one: first.qcow2, a folder/],
    ['ova:vm.ova#nothing', /no disk 'nothing' in it/],
    ['ova:long.ova', /describes no disk/],
    ['ova:0.raw', /it is no OVA|describes no disk/],
    ['ova:cut.ova#vmdisk1', /ends beyond the file/],
    ['ova:wrong.ova#vmdisk1', /no tar header at byte 0/],
    ['ova:missing.ova#x', /No such file/],
  ] as const) {
    const { code, stderr } = await runCowherd(['info', name], folder);
    assert.equal(code, 1, name);
    assert.match(stderr, expected);
    assert.match(stderr, /^cowherd: Could not open '[^\n]*\n$/);
  }
});

test('an OVA with one disk need not say which, and may lie behind a URL', async (t) => {
  if (!needsTool(t, 'tar')) return;
  const folder = await makeOva(t, 'ustar');
  const one = description.replace(/<ovf:File[^>]*>/, '').replace(/<Disk[^>]*vmdisk2[^>]*>/, '');
  await writeFile(path.join(folder, 'vm.ovf'), one);
  await runOk('tar', ['-cf', 'one.ova', 'vm.ovf', 'first.qcow2'], { cwd: folder });
  assert.equal((await runCowherd(['compare', 'ova:one.ova', '0.raw'], folder)).code, 0);
  const { startWebServer } = await import('../../support/web-server.js');
  const server = await startWebServer(t, await readFile(path.join(folder, 'one.ova')));
  const same = await runCowherd(['compare', `ova:${server.url}#vmdisk1`, '0.raw'], folder);
  assert.equal(same.code, 0, same.stderr);
});
