/**
 * Images with damaged tables, met by commands that read them: both programs say the same of the
 * first thing that cannot be told, and salvage the same content.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertSame, runCowherd, runQemuImg } from '../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 4);

/** Clusters of 4 KiB: one table maps 2 MiB. */
const clusterBytes = 4096;
const tables = 2;
const clusters = tables * 512;

interface Scenario {
  /** Clusters whose entries point at no cluster's begin. */
  readonly damaged: readonly number[];
  /** An L1 entry that points at no table's begin. */
  readonly table: number | undefined;
  /** A cluster that differs in the other image. */
  readonly different: number | undefined;
}

const scenario: fc.Arbitrary<Scenario> = fc.record({
  damaged: fc.uniqueArray(fc.nat(clusters - 1), { maxLength: 3 }),
  table: fc.option(fc.nat(tables - 1), { nil: undefined, freq: 3 }),
  different: fc.option(fc.nat(clusters - 1), { nil: undefined }),
});

async function damage(file: string, { damaged, table }: Scenario): Promise<void> {
  const image = await open(file, 'r+');
  try {
    const word = async (at: number): Promise<bigint> => {
      const bytes = Buffer.alloc(8);
      await image.read(bytes, 0, 8, at);
      return bytes.readBigUInt64BE();
    };
    const off = async (at: number): Promise<void> => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64BE((await word(at)) | 0x200n);
      await image.write(bytes, 0, 8, at);
    };
    const l1 = Number(await word(40));
    for (const cluster of damaged) {
      const l2 = Number((await word(l1 + Math.floor(cluster / 512) * 8)) & 0xfffffffffffe00n);
      await off(l2 + (cluster % 512) * 8);
    }
    if (table !== undefined) await off(l1 + table * 8);
  } finally {
    await image.close();
  }
}

test(`damage that is met is told as qemu-img tells it (seed ${seed})`, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const root = await temporaryFolder(t);
  const bytes = clusters * clusterBytes;
  const make = async (name: string, more: readonly string[] = []): Promise<string> => {
    const file = path.join(root, name);
    await runOk('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-o',
      'cluster_size=4k',
      file,
      String(bytes),
    ]);
    await runOk('qemu-io', ['-c', `write -q -P 1 0 ${bytes}`, ...more, file]);
    return file;
  };
  await fc.assert(
    fc.asyncProperty(scenario, async (given) => {
      await damage(await make('damaged.qcow2'), given);
      const { different } = given;
      const change =
        different === undefined
          ? []
          : ['-c', `write -q -P 2 ${different * clusterBytes} ${clusterBytes}`];
      await make('other.qcow2', change);
      await assertSame(['map', 'damaged.qcow2'], root);
      await assertSame(['compare', 'damaged.qcow2', 'other.qcow2'], root);
      await assertSame(['compare', 'other.qcow2', 'damaged.qcow2'], root);
      await assertSame(['convert', '-O', 'raw', 'damaged.qcow2', 'out.raw'], root);
      const salvage = (target: string): string[] => [
        'convert',
        '--salvage',
        '-O',
        'raw',
        'damaged.qcow2',
        target,
      ];
      const theirs = await runQemuImg(salvage('theirs.raw'), root);
      const ours = await runCowherd(salvage('ours.raw'), root);
      assert.deepEqual([ours.code, ours.stdout], [theirs.code, theirs.stdout], ours.stderr);
      await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', 'theirs.raw', 'ours.raw'], {
        cwd: root,
      });
      const isDamaged = given.damaged.length > 0 || given.table !== undefined;
      assert.equal(ours.stderr.includes('error while reading block status at offset'), isDamaged);
    }),
    { seed, numRuns },
  );
});
