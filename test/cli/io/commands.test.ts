/** The commands of `io` do, say and refuse what those of qemu-io do: on twins, one for each program. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { assertAlike, bothRun, ioTwins } from '../../support/io-twins.js';
import { smallDisk } from '../../support/small-disk.js';
import { needsTool, runOk } from '../../support/tools.js';

/** What each image is, by its name. */
const formats = {
  disk: 'qcow2',
  above: 'qcow2',
  subclusters: 'qcow2',
  'subclusters above': 'qcow2',
  raw: 'raw',
  odd: 'raw',
};

type Name = keyof typeof formats;

async function makeImages(folder: string): Promise<void> {
  const create = (...words: readonly string[]): Promise<string> =>
    runOk('qemu-img', ['create', '-q', ...words], { cwd: folder });
  await create('-f', 'qcow2', 'disk', '1M');
  await create('-f', 'qcow2', 'below', '1M');
  await runOk('qemu-io', ['-c', 'write -P 7 100k 300k', 'below'], { cwd: folder });
  await create('-f', 'qcow2', '-b', 'below', '-F', 'qcow2', 'above', '2M');
  await create('-f', 'qcow2', '-o', 'extended_l2=on', 'subclusters', '1M');
  const extended = ['-f', 'qcow2', '-o', 'extended_l2=on', '-b', 'below', '-F', 'qcow2'];
  await create(...extended, 'subclusters above', '2M');
  await create('-f', 'raw', 'raw', '1M');
  await writeFile(path.join(folder, 'odd'), Buffer.alloc(1000, 'x'));
  await writeFile(path.join(folder, 'pattern'), 'abc');
  await writeFile(path.join(folder, 'empty'), '');
}

interface Script {
  readonly on: readonly Name[];
  readonly options?: readonly string[];
  readonly lines: readonly string[];
}

const everywhere: readonly Name[] = ['disk', 'above', 'subclusters', 'raw'];

const scripts: Readonly<Record<string, Script>> = {
  'reads and writes': {
    on: everywhere,
    lines: [
      ...['write 0 64k', 'read -P 0xcd 0 64k', 'w -P 9 1000 2000', 'r -P 9 1000 2000'],
      ...['read -P 9 999 2000', 'read -P 9 -s 1 -l 10 999 2000', 'write -P 255 1048000 576'],
      ...['read -P 0 512k 512', 'write -f 3 5', 'write -q 0 5', 'write -C 0 5', 'read -q 0 5'],
      ...['read -C 0 1024', 'read 0 0', 'read -p 0 5', 'read -r 0 5', 'write -p 0 5'],
      ...['read -- 0 512', 'read 0 512 -q', 'read 0 -P 0 512', 'read    5  6', 'read 0x10 0x20'],
      ...['read 1k 1.5k', 'read 1b 1B', 'write -P 010 0 16', 'read -P +8 0 16'],
    ],
  },
  'what was read is shown': {
    on: ['disk'],
    lines: ['write -s pattern 3 40', 'read -v 0 50', 'readv -v 16 3 5 16', 'read -qv 0 16'],
  },
  vectors: {
    on: everywhere,
    lines: [
      ...['writev -P 3 0 512 512', 'writev -f 700 20 21 3', 'writev -q 0 512', 'writev -C 0 512'],
      ...['readv -P 3 0 512', 'readv -P 1 0 512 1024', 'readv -P 0xcd 700 20 24', 'readv 0 0'],
    ],
  },
  zeroes: {
    on: everywhere,
    lines: [
      ...['write -P 1 0 300k', 'write -z 10 100', 'write -z 64k 64k', 'write -zu 128k 64k'],
      ...['write -zn 192k 64k', 'read -P 0 64k 192k', 'write -zf 5 7', 'write -zq 900k 1k'],
    ],
  },
  discards: {
    on: everywhere,
    lines: [
      ...['write -P 1 0 300k', 'discard 64k 64k', 'd 0 1', 'discard -C 0 5', 'discard -q 0 5'],
      ...['read 0 300k', 'discard 128k 128k'],
    ],
  },
  'discards that free nothing': {
    on: ['disk', 'raw'],
    options: ['-d', 'ignore'],
    lines: ['write -P 1 0 300k', 'discard 0 128k', 'write -zu 128k 64k', 'read -P 1 0 128k', 'map'],
  },
  'what is given up where the image below ends before': {
    on: ['above', 'subclusters above'],
    lines: [
      'discard 1M 512k',
      'map',
      'write -P 5 1M 64k',
      'discard 960k 256k',
      'alloc 1M 1M',
      'map',
    ],
  },
  'compressed clusters': {
    on: ['disk', 'above', 'subclusters'],
    lines: [
      ...['write -c -P 1 0 64k', 'write -c -P 2 128k 128k', 'read -P 2 128k 128k', 'map'],
      ...[
        'write -c 0 512',
        'write -c 512 64k',
        'write -c 0 5',
        'write -c 3 512',
        'write -c 3M 64k',
      ],
      ...['write -P 4 100 100', 'read -P 1 200 60000', 'write -zc 0 512'],
      // Over what is stored, as data, compressed or as zeroes that keep their cluster.
      ...['write -c -P 5 0 64k', 'write -c -P 5 128k 64k', 'write 256k 64k', 'write -z 256k 64k'],
      ...['write -c -P 5 192k 128k', 'write -zu 256k 64k', 'write -c -P 6 256k 64k', 'map'],
    ],
  },
  'beyond the end': {
    on: everywhere,
    lines: [
      ...['read 2M 512', 'write 2M 512', 'write -z 2M 512', 'readv 2M 512', 'writev 2M 5'],
      ...['discard 2M 5', 'read 2097151 2', 'read 7E 5', 'read 9223372036854775807 1'],
      ...['write 2097100 1k', 'length', 'alloc 3M', 'aio_read 2M 5', 'aio_flush', 'aio_write 2M 5'],
      ...['aio_flush'],
    ],
  },
  'the end of a file within a sector': {
    on: ['odd'],
    lines: ['length', 'read 990 10', 'read 990 600'],
  },
  'sizes and places': {
    on: everywhere,
    lines: [
      ...['length', 'l', 'info', 'i', 'map', 'write 64k 64k', 'write 256k 10', 'map'],
      ...['alloc 0', 'a 64k', 'alloc 64k 128k', 'alloc 0 1M', 'alloc 5M', 'alloc 0 0', 'alloc 3 5'],
      ...[
        'alloc 65530 100',
        'alloc 2097151 5',
        'map x',
        'alloc',
        'alloc x',
        'alloc 0 x',
        'alloc -1',
      ],
    ],
  },
  'other sizes': {
    on: ['disk', 'subclusters', 'raw'],
    lines: [
      ...['truncate 3M', 'length', 'write -P 3 2M 1M', 't 2560k', 'length', 'map', 'truncate 10M'],
      ...['read -P 3 2M 512k', 'read -P 0 2560k 1M', 'truncate x', 'truncate', 'truncate -5'],
      ...['truncate -m odd 5M', 'truncate -x 1', 'truncate 9E', 'truncate 5M 6M', 'length'],
    ],
  },
  'requests that run on': {
    on: everywhere,
    lines: [
      ...['aio_write -P 5 0 512 512', 'aio_flush', 'aio_read -P 5 0 1k', 'aio_flush'],
      ...['aio_read -P 6 0 1k', 'aio_flush', 'aio_read -v 0 20', 'aio_flush', 'aio_write -z 0 5'],
      ...['aio_flush', 'aio_write -zu 0 64k', 'aio_flush', 'aio_write -f 0 5', 'aio_flush'],
      ...['aio_write -C 0 5', 'aio_flush', 'aio_read -C 0 5', 'aio_flush', 'aio_write -q 0 5'],
      ...['aio_flush', 'aio_read -i 0 5', 'aio_write -i 0 5', 'aio_write -zP 1 0 5', 'aio_flush'],
      ...['aio_write 900k 100', 'length'],
    ],
  },
  'a request that runs on when that ends': {
    on: ['disk'],
    lines: ['aio_write -P 5 0 64k', 'quit', 'length'],
  },
  'flags that cannot be together': {
    on: ['disk'],
    lines: [
      ...['write -bz 0 512', 'write -fb 0 512', 'write -fc 0 64k', 'write -n 0 5', 'write -u 0 5'],
      ...['write -rz 0 5', 'write -z -P 1 0 5', 'write -s pattern -P 1 0 5', 'read -s 5 0 5'],
      ...['read -l 5 0 5', 'read -P 0 -l 5 -s 5 0 9', 'read -P 0 -s 9 0 5', 'aio_write -u 0 5'],
      ...[
        'aio_write -z 0 5 5',
        'aio_write -zr 0 5',
        'read -b 3 512',
        'read -b 0 5',
        'write -b 0 5',
      ],
      ...['write -b 0 3G', 'write -c 3 512'],
    ],
  },
  'words that are wrong': {
    on: ['disk'],
    lines: [
      ...['foo', '', '   ', '# read', '"read" 0 5', 'read', 'read 0', 'read 0 1 2', 'read -x 0 1'],
      ...['read -P', 'read x 1', 'read 0 x', 'read 0 99E', 'read 0 2G', 'read -1 1', 'read 0.5 1'],
      ...['read -P x 0 1', 'read -P 256 0 1', 'read -P -1 0 1', 'read -P 0 -l x 0 1', 'readv'],
      ...['readv 0 x', 'readv 0 1G 1G', 'readv 0 2G', 'readv -x 0 1', 'writev 0', 'writev x 1'],
      ...['writev 0 2G', 'aio_read 0', 'aio_read -x 0 1', 'aio_write x 1', 'aio_write -P x 0 1'],
      ...['write 0', 'write 0 1 2', 'write -x 0 1', 'write 0 3G', 'write -z 0 3G', 'write -z 0'],
      ...['write -s none 0 5', 'write -s empty 0 5', 'write -s . 0 5', 'discard', 'discard x 1'],
      ...['discard 0 2G', 'discard 0 1 2', 'discard -x 0 1', 'flush x', 'aio_flush x', 'length x'],
      ...[
        'info x',
        'close x',
        'sleep',
        'sleep x',
        'sleep -5',
        'sleep 1.5',
        'sleep 10x',
        'sleep +5',
      ],
      ...['sleep 010', 'abort x', 'sigraise', 'sigraise x', 'sigraise 0', 'help foo', 'help a b'],
      ...['break', 'break x', 'resume', 'remove_break'],
    ],
  },
  'breakpoints, of which there are none': {
    on: ['disk', 'raw'],
    lines: ['break read_aio A', 'resume A', 'remove_break A'],
  },
  'an image that is only read': {
    on: everywhere,
    options: ['-r'],
    lines: [
      ...['write 0 5', 'write -z 0 5', 'write', 'writev 0 5', 'aio_write 0 5', 'discard 0 5'],
      ...['truncate 5M', 'flush', 'read 0 5', 'map', 'reopen -w', 'write -P 3 0 5', 'reopen -r'],
      ...['write 0 5', 'read -P 3 0 5'],
    ],
  },
  'what is written is gone': {
    on: ['disk', 'above', 'raw'],
    options: ['-s'],
    lines: ['write -P 99 0 64k', 'read -P 99 0 64k', 'length'],
  },
  'what lies below is kept when it is read': {
    on: ['above'],
    options: ['-C'],
    lines: [
      'read 0 64k',
      'map',
      'read -P 7 120k 10',
      'map',
      'readv 1M 5 5',
      'aio_read 350k 5',
      'aio_flush',
      'map',
    ],
  },
  'parts of clusters are kept when they are read': {
    on: ['subclusters above'],
    options: ['-C'],
    lines: ['read 5000 10', 'map', 'read -P 7 120k 10', 'map', 'read 1M 100k', 'map'],
  },
  'direct access': {
    on: everywhere,
    options: ['-n', '-m'],
    lines: ['write -P 3 3 5', 'read -P 3 3 5', 'writev -P 4 512 511 2', 'read -P 4 512 513'],
  },
  'opened in another way': {
    on: ['disk'],
    lines: [
      ...['reopen -r', 'write 0 1', 'reopen -w', 'write 0 1', 'reopen -c none', 'write 0 1'],
      ...['reopen -c foo', 'reopen -rw', 'reopen -r -r', 'reopen x', 'reopen -x', 'reopen'],
      ...['reopen -o lazy-refcounts=on', 'reopen -o cache.direct=on', 'write -P 3 64k 5'],
      ...['reopen -c none -o cache.direct=off', 'read -P 3 64k 5'],
    ],
  },
  'closed, and another one opened': {
    on: ['disk'],
    lines: [
      ...['open disk', 'close', 'close', 'length', 'read 0 1', 'open', 'open none', 'open -x disk'],
      ...['open disk above', 'open -t foo disk', 'open -d foo disk', 'open -i foo disk'],
      ...['open -r disk', 'write 0 1', 'close', 'open -o driver=qcow2 disk', 'length', 'close'],
      ...['open -o driver=qcow2,file.filename=disk', 'length', 'close', 'open -o foo=bar disk'],
      ...['open -o cache-size=1280k,l2-cache-size=1M,refcount-cache-size=256k disk', 'length'],
      ...['open -o cache-size=1M,l2-cache-size=2M disk', 'open -o l2-cache-entry-size=256 disk'],
      ...[
        'open -o cache-size=1M,refcount-cache-size=2M disk',
        'open -o l2-cache-entry-size=5k disk',
      ],
      ...['open -o l2-cache-entry-size=128k disk', 'open -o l2-cache-entry-size=4k disk', 'close'],
      ...[
        'open -o cache-size=0 disk',
        'write 0 64k',
        'close',
        'open -o refcount-cache-size=0 disk',
      ],
      ...['write 64k 64k', 'close', 'open -o cache-size=2M,l2-cache-size=1M disk', 'close'],
      ...['open -o driver=foo disk', 'open -o driver=qcow2 none', 'open -o file.filename=none'],
      ...['open -U disk', 'open -rU disk', 'close', 'open -s disk', 'write 0 1', 'length', 'close'],
      ...['open -rC disk', 'open -o driver=raw,size=512 raw', 'length', 'info', 'quit', 'length'],
    ],
  },
};

for (const [name, { on, options = [], lines }] of Object.entries(scripts)) {
  test(name, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const twins = await ioTwins(t, makeImages);
    for (const image of on) {
      const format = formats[image];
      await bothRun(twins, lines, [...options, '-f', format, image]);
      await assertAlike(twins, image, format, `${name}, ${image}`);
    }
  });
}

test('nodes over an image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, async (folder) => {
    await makeImages(folder);
    const rule = '[inject-error]\nevent = "cor_write"\nsector = "500"\n';
    await writeFile(path.join(folder, 'rules'), rule);
  });
  const lines = [
    ...['open -r -o driver=copy-on-read,file.driver=qcow2 above', 'length'],
    ...['open -o driver=copy-on-read,file.driver=qcow2 above', 'read 0 70k', 'map', 'close'],
    ...['open -o driver=copy-on-read,file.driver=qcow2,file.file.filename=above', 'map', 'close'],
    ...['open -o driver=blkdebug,align=4k,max-transfer=64k,image.driver=qcow2 blkdebug::above'],
    ...['write -P 33 1000 128k', 'read -P 33 1000 128k', 'discard 64k 64k', 'map', 'close'],
    ...['open -C -o driver=blkdebug,config=rules,image.driver=qcow2 above', 'read 250k 1'],
    ...['read 900k 1', 'read 200k 1', 'map', 'close'],
    ...['open -C -o driver=blkdebug,image.driver=qcow2 blkdebug:rules:above', 'read 250k 1'],
  ];
  await bothRun(twins, lines, []);
  await assertAlike(twins, 'above', 'qcow2', 'nodes');
});

test('a disk that is full', async (t) => {
  const folders = [await smallDisk(t, 3 << 20), await smallDisk(t, 3 << 20)];
  const [mine, theirs] = folders;
  if (mine === undefined || theirs === undefined || !needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const format of ['qcow2', 'raw']) {
    for (const each of [mine, theirs]) {
      await runOk('qemu-img', ['create', '-q', '-f', format, format, '20M'], { cwd: each });
    }
    const lines = [
      ...['write -P 1 0 1M', 'write -P 2 1M 10M', 'read -P 1 0 1M', 'write -P 3 0 64k'],
      ...['aio_write 12M 4M', 'aio_flush', 'writev 11M 4M 1M', 'read -P 3 0 64k'],
    ];
    const { code } = await bothRun({ mine, theirs }, lines, ['-f', format, format]);
    assert.equal(code, 1);
    await runOk('qemu-img', ['info', '-f', format, path.join(mine, format)]);
    if (format === 'qcow2') await runOk('qemu-img', ['check', '-q', path.join(mine, format)]);
    for (const each of [mine, theirs]) await rm(path.join(each, format));
  }
});

test('images that cannot be opened, and options that are wrong', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, makeImages);
  for (const words of [
    ['none'],
    ['none/none'],
    ['-f', 'qcow2', 'raw'],
    ['-f', 'foo', 'disk'],
    ['-t', 'foo', 'disk'],
    ['-d', 'foo', 'disk'],
    ['-i', 'foo', 'disk'],
    ['-U', 'disk'],
    ['-rC', 'disk'],
    ['--image-opts', 'driver=qcow2,file.filename=disk'],
    ['--image-opts', 'driver=qcow2,file.filename=none'],
    ['--image-opts', '-f', 'qcow2', 'driver=qcow2,file.filename=disk'],
    ['json:{"driver":"qcow2","file":{"driver":"file","filename":"disk"}}'],
    ['json:{"driver":"qcow2","file":{"driver":"file","filename":"none"}}'],
    ["json:{'driver':'qcow2','file':{'driver':'file','filename':'disk'}}"],
    ["json:{'driver':'qcow2','file':{'filename':'disk'},'backing':null}"],
    ['raw'],
    ['-r', 'raw'],
    ['-i', 'threads', '-t', 'writeback', '--read-only', 'disk'],
    [],
  ]) {
    await bothRun(twins, ['length'], words);
  }
});

test('a data file that is not there, and one that is not named', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, async (folder) => {
    for (const name of ['gone', 'unnamed']) {
      const options = `data_file=${name} data`;
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, name, '1M'], {
        cwd: folder,
      });
    }
    const list = 'driver=qcow2,file.filename=unnamed,data-file.filename=unnamed data';
    await runOk('qemu-img', ['amend', '-o', 'data_file=', '--image-opts', list], { cwd: folder });
    await rm(path.join(folder, 'gone data'));
  });
  for (const name of ['gone', 'unnamed']) await bothRun(twins, ['read 0 4k'], [name]);
});
