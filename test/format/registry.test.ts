/** A format and a protocol that are registered, each in one file, work in every command. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before, test } from 'node:test';
import { registerFormat } from '../../src/format/registry.js';
import { registerProtocol } from '../../src/storage/registry.js';
import { toyProtocol } from '../storage/toy-protocol.js';
import { runCowherd } from '../support/both-tools.js';
import { temporaryFolder } from '../support/tools.js';
import { toyFormat } from './toy-format.js';

before(() => {
  registerFormat(toyFormat);
  registerProtocol(toyProtocol);
});

/** Runs a command that has to succeed. */
async function runOk(words: readonly string[], folder: string): Promise<string> {
  const { code, stdout, stderr } = await runCowherd(words, folder);
  assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
  return stdout;
}

for (const [what, name] of [
  ['a format', 'disk.toy'],
  ['a format behind a protocol', 'toy://folder/disk'],
] as const) {
  test(`${what} of one file works in every command`, async (t) => {
    const folder = await temporaryFolder(t);
    const bytes = Uint8Array.from({ length: 3 << 20 }, (_, index) =>
      index < 1 << 20 ? 0 : (index >> 8) & 0xff,
    );
    await writeFile(path.join(folder, 'plain.raw'), bytes);

    await runOk(['convert', '-O', 'toy', 'plain.raw', name], folder);
    const info = JSON.parse(await runOk(['info', '--output=json', name], folder)) as object;
    assert.deepEqual(
      [Reflect.get(info, 'format'), Reflect.get(info, 'virtual-size')],
      ['toy', bytes.length],
    );
    await runOk(['compare', name, 'plain.raw'], folder);
    await runOk(['compare', '-f', 'toy', '-F', 'raw', name, 'plain.raw'], folder);
    const map = JSON.parse(await runOk(['map', '--output=json', name], folder)) as unknown[];
    assert.equal(map.length, 1);
    await runOk(['convert', '-O', 'qcow2', name, 'copy.qcow2'], folder);
    await runOk(['compare', 'copy.qcow2', 'plain.raw'], folder);
    await runOk(['bench', '-w', '-c', '10', name], folder);
    await runOk(['bench', '-c', '10', name], folder);

    await runOk(['create', '-q', '-f', 'qcow2', '-b', name, '-F', 'toy', 'above.qcow2'], folder);
    const chain = await runOk(['map', '--output=json', 'above.qcow2'], folder);
    assert.match(chain, /"depth": 1/);

    assert.match(await runOk(['create', '-f', 'toy', '-o', 'help'], folder), /size=<size>/);
    assert.match(await runOk(['create', '-f', 'toy', name, '1M'], folder), /fmt=toy size=1048576/);
    const check = await runCowherd(['check', name], folder);
    assert.equal(check.code, 63);
    assert.match(check.stderr, /does not support checks/);
    const unknown = await runCowherd(
      ['create', '-f', 'toy', '-o', 'cluster_size=4096', name, '1M'],
      folder,
    );
    assert.match(unknown.stderr, /Invalid parameter 'cluster_size'/);
  });
}

test('what is missing behind a protocol is told in one line', async (t) => {
  const folder = await temporaryFolder(t);
  const { code, stderr } = await runCowherd(['info', 'toy://nothing'], folder);
  assert.equal(code, 1);
  assert.match(stderr, /^cowherd: Could not open 'toy:\/\/nothing': [^\n]*No such file[^\n]*\n$/);
});
