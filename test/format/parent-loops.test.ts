/** Images that stand on themselves, or on one another in a ring: told in one line, by every command. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../src/image/graph/open.js';
import { runCowherd } from '../support/both-tools.js';
import { temporaryFolder } from '../support/tools.js';
import { differencingImage } from './vpc/vhd-builder.js';
import { vhdxImage } from './vhdx/vhdx-builder.js';

const mib = 1024 * 1024;

/** Makes a file that names its parent. */
type Make = (file: string, parent: string) => Promise<void>;

const makers: Readonly<Record<string, Make>> = {
  vpc: (file, parent) =>
    writeFile(
      file,
      differencingImage({
        size: 4 * mib,
        blockSize: 2 * mib,
        blocks: [],
        locators: [{ code: 'W2ru', data: Buffer.from(parent, 'utf16le') }],
        parentName: '',
      }),
    ),
  vhdx: (file, parent) =>
    writeFile(
      file,
      vhdxImage({
        size: 4 * mib,
        blockSize: mib,
        sectorSize: 512,
        blocks: [],
        parent: { relative_path: parent },
      }),
    ),
  vmdk: (file, parent) => {
    const lines = [
      '# Disk DescriptorFile',
      'version=1',
      'CID=12345678',
      'parentCID=12345678',
      'createType="monolithicFlat"',
      `parentFileNameHint="${parent}"`,
      'RW 2048 ZERO',
      '',
    ];
    return writeFile(file, lines.join('\n'));
  },
  qed: (file, parent) => {
    const cluster = 4096;
    const bytes = Buffer.alloc(3 * cluster);
    bytes.write('QED\0', 'latin1');
    bytes.writeUInt32LE(cluster, 4);
    bytes.writeUInt32LE(2, 8);
    bytes.writeUInt32LE(1, 12);
    // It has a backing file.
    bytes.writeUInt8(1, 16);
    bytes.writeBigUInt64LE(BigInt(cluster), 40);
    bytes.writeBigUInt64LE(BigInt(mib), 48);
    bytes.writeUInt32LE(64, 56);
    bytes.writeUInt32LE(parent.length, 60);
    bytes.write(parent, 64);
    return writeFile(file, bytes);
  },
  qcow: (file, parent) => {
    const bytes = Buffer.alloc(8192);
    bytes.write('QFI\xfb', 'latin1');
    bytes.writeUInt32BE(1, 4);
    bytes.writeBigUInt64BE(64n, 8);
    bytes.writeUInt32BE(parent.length, 16);
    bytes.writeBigUInt64BE(BigInt(mib), 24);
    bytes.writeUInt8(12, 32);
    bytes.writeUInt8(9, 33);
    bytes.writeBigUInt64BE(4096n, 40);
    bytes.write(parent, 64);
    return writeFile(file, bytes);
  },
};

for (const [format, make] of Object.entries(makers)) {
  test(`${format}: images that are their own parents`, async (t) => {
    const folder = await temporaryFolder(t);
    const at = (name: string): string => path.join(folder, name);
    await make(at('self'), 'self');
    await make(at('one'), 'two');
    await make(at('two'), 'three');
    await make(at('three'), 'one');
    for (const name of ['self', 'one']) {
      await assert.rejects(openImage(at(name), { format, readOnly: true }), {
        code: 'ERR_COWHERD_BACKING',
        message: /^[^\n]*infinite loop\.$/,
      });
      for (const words of [
        ['info', '--backing-chain', '-f', format, name],
        ['convert', '-f', format, '-O', 'raw', name, 'out'],
        ['map', '-f', format, name],
      ]) {
        const { code, stderr } = await runCowherd(words, folder);
        assert.equal(code, 1, words.join(' '));
        assert.match(stderr, /^cowherd: [^\n]*infinite loop\.\n$/);
      }
    }
  });
}
