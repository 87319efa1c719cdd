/** Wrong command lines are answered as qemu-img answers them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commands } from '../../src/cli/commands.js';
import { assertSame, runCowherd } from '../support/both-tools.js';
import { fixture, unpackFixtures } from '../support/fixtures.js';
import { needsTool } from '../support/tools.js';

const mistakes: readonly string[] = [
  '',
  'nonsense',
  '--nonsense',
  '-Z',
  'info',
  'info a b',
  'info -Z a',
  'info --bogus a',
  'info --output=xml a',
  'info nowhere',
  'info -f nonsense base.raw',
  'info -f qcow2 base.raw',
  'info foo:bar',
  'info .',
  'info --image-opts -f raw base.raw',
  'info --image-opts base.raw',
  'info --image-opts driver=qcow2',
  'info --image-opts driver=nonsense,file.filename=base.raw',
  'info --image-opts driver=raw,file.filename=nowhere',
  'info --image-opts driver=qcow2,nonsense=1,file.filename=v2.qcow2',
  'info version-4.qcow2',
  'info unknown-incompatible.qcow2',
  'info unknown-incompatible-nameless.qcow2',
  'map',
  'map a b',
  'map -s nonsense a',
  'map -s -1 a',
  'map -l nonsense a',
  'map -l -1 a',
  'map --output xml a',
  'map nowhere',
  'map backing-missing.qcow2',
  'check',
  'check a b',
  'check -r',
  'check -r nonsense a',
  'check --output=xml a',
  'check -T nonsense base.raw',
  'check nowhere',
  'check --quiet=5 a',
  'check --format',
  'compare',
  'compare a',
  'compare a b c',
  'compare -f nonsense base.raw base.raw',
  'compare -F qcow2 base.raw base.raw',
  'compare -T nonsense base.raw base.raw',
  'compare --image-opts -f raw a b',
  'convert',
  'convert a',
  'convert nowhere out',
  'convert -f nonsense base.raw out',
  'convert -f qcow2 base.raw out',
  'convert -O nonsense base.raw out',
  'convert base.raw nowhere/out',
  'convert -O qcow2 base.raw nowhere/out',
  'convert -c base.raw out',
  'convert -n base.raw nowhere',
  'convert -n base.raw odd.raw',
  'convert -n -O qcow2 base.raw odd.raw',
  'convert -O qcow2 -B base.raw v2.qcow2 out',
  'convert -O raw -B base.raw -F raw v2.qcow2 out',
  'convert -O qcow2 -F raw v2.qcow2 out',
  'convert -l nonsense snapshots.qcow2 out',
  'convert -l snapshot.id=7 snapshots.qcow2 out',
  'convert -l snapshot.nonsense=1 snapshots.qcow2 out',
  'convert -S 1000 base.raw out',
  'convert -S nonsense base.raw out',
  'convert -m 0 base.raw out',
  'convert -m 17 base.raw out',
  'convert -m nonsense base.raw out',
  'convert -r nonsense base.raw out',
  'convert -t nonsense base.raw out',
  'convert -T nonsense base.raw out',
  'convert --target-is-zero base.raw out',
  'convert -C -S 4k base.raw out',
  'convert -C --salvage base.raw out',
  'convert -O qcow2 -B base.raw -F raw base.raw odd.raw out',
  'convert -l first snapshots.qcow2 snapshots.qcow2 out',
  'convert -O qcow2 -o nonsense base.raw out',
  'convert -O qcow2 -o nonsense=1 base.raw out',
  'convert -O qcow2 -o cluster_size=3k base.raw out',
  'convert -O qcow2 -o preallocation=nonsense base.raw out',
  'convert -O qcow2 -c -o preallocation=metadata base.raw out',
  'convert -O qcow2 -n -o cluster_size=4k base.raw out',
  'convert --image-opts -f raw driver=raw,file.filename=base.raw out',
  'convert --target-image-opts base.raw driver=raw,file.filename=out',
  'convert -n -O raw --target-image-opts base.raw driver=raw,file.filename=odd.raw',
  'convert --skip-broken-bitmaps base.raw out',
  'convert -Z base.raw out',
  'create',
  'create -f',
  'create -Z a',
];

test('mistakes are told in the same words with the same exit codes', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const names = [
    'base.raw',
    'odd.raw',
    'v2.qcow2',
    'snapshots.qcow2',
    'version-4.qcow2',
    'unknown-incompatible.qcow2',
    'unknown-incompatible-nameless.qcow2',
    'backing-missing.qcow2',
  ];
  const folder = await unpackFixtures(t, names.map(fixture));
  for (const mistake of mistakes) {
    await t.test(`cowherd ${mistake}`, async () => {
      await assertSame(mistake === '' ? [] : mistake.split(' '), folder);
    });
  }
});

test('every command explains its options', async () => {
  for (const { name, options } of commands) {
    const { stdout, code } = await runCowherd([name, '--help'], '.');
    assert.equal(code, 0);
    assert.ok(stdout.startsWith(`Usage: cowherd ${name} `));
    for (const { long } of Object.values(options)) {
      if (long !== undefined) assert.ok(stdout.includes(`--${long}`), `${name} --${long}`);
    }
  }
  const { stdout } = await runCowherd(['--help'], '.');
  for (const { name, summary } of commands) {
    assert.ok(stdout.includes(name) && stdout.includes(summary));
  }
});

test('the version is that of the package', async () => {
  const { stdout, code } = await runCowherd(['--version'], '.');
  assert.equal(code, 0);
  assert.match(stdout, /^cowherd version \d+\.\d+\.\d+\n$/);
});

test('names that QEMU would open over a network are refused, and JSON without a file', async () => {
  const reason = /(?:Unknown protocol|A block device must be|Could not parse the JSON)/;
  for (const name of [
    'json:{"driver":"raw"}',
    'json:{',
    'ssh://localhost/a',
    'ftp://localhost/a',
  ]) {
    const { code, stderr } = await runCowherd(['info', name], '.');
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`^cowherd: Could not open '.*': ${reason.source}`));
  }
});
