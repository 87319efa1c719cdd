/** Sizes are read and printed as qemu-img does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSize, formatSizeAndBytes } from '../../../src/cli/text/size.js';
import { parseSize } from '../../../src/size.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

test('suffixes are powers of 1024 in either case, fractions are rounded to bytes', () => {
  assert.equal(parseSize('512'), 512n);
  assert.equal(parseSize('10k'), 10240n);
  assert.equal(parseSize('1.5M'), 1572864n);
  assert.equal(parseSize('.5K'), 512n);
  assert.equal(parseSize('0.1k'), 102n);
  assert.equal(parseSize('0x400'), 1024n);
  assert.equal(parseSize('7E'), 7n * 2n ** 60n);
  assert.equal(parseSize('9223372036854775807'), 2n ** 63n - 1n);
});

test('what is no size is told from what is too large', () => {
  for (const text of ['', '-', '1.5', '1e3', '1kB', '1k ', '0x1k', '0x', 'nan', '-1k', '1,5k']) {
    assert.equal(parseSize(text), 'invalid', text);
  }
  for (const text of ['-1', '8E', '9223372036854775808', '99999999999999999999']) {
    assert.equal(parseSize(text), 'out-of-range', text);
  }
});

test('the same texts are sizes for qemu-img', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const texts = ['1.5', '.5k', '1e3', '0x400', '0x1k', '0x1E', ' 1k', '+1k', '1k ', '1B', '1.k'];
  for (const text of [...texts, '512.0', '0.1k', '00012', '-1', '-1k', '8E', '', '.', '3.9k']) {
    const { stdout, stderr } = await run('qemu-img', ['create', 'x.raw', '--', text], {
      cwd: folder,
    });
    const size = parseSize(text);
    if (size === 'invalid') assert.match(stderr, /Invalid image size specified: /, text);
    else if (size === 'out-of-range') assert.match(stderr, /Must be between/, text);
    else assert.ok(stdout.includes(` size=${size}`), `${text}: ${stdout}${stderr}`);
  }
});

test('sizes are printed with three digits and a unit that begins at 1000', () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, '0 B'],
    [512, '512 B'],
    [999, '999 B'],
    [1000, '0.977 KiB'],
    [1024, '1 KiB'],
    [1152, '1.12 KiB'],
    [1200, '1.17 KiB'],
    [33024, '32.2 KiB'],
    [33280, '32.5 KiB'],
    [1023487, '999 KiB'],
    [1023488, '1e+03 KiB'],
    [1024000, '0.977 MiB'],
    [1500160, '1.43 MiB'],
    [2 ** 40, '1 TiB'],
    [1048576000, '0.977 GiB'],
    [7 * 2 ** 60, '7 EiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(formatSize(bytes), text);
  assert.equal(formatSizeAndBytes(1048576), '1 MiB (1048576 bytes)');
});
