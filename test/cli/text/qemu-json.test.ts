/** JSON is laid out as QEMU's tools do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatQemuJson } from '../../../src/cli/text/qemu-json.js';

test('four spaces, empty brackets on lines of their own, missing members left out', () => {
  assert.equal(
    formatQemuJson({ list: [], some: [1, 'a'], object: {}, gone: undefined, yes: true }),
    [
      '{',
      '    "list": [',
      '    ],',
      '    "some": [',
      '        1,',
      '        "a"',
      '    ],',
      '    "object": {',
      '    },',
      '    "yes": true',
      '}',
    ].join('\n'),
  );
});

test('what is not ASCII is escaped with capital digits', () => {
  assert.equal(formatQemuJson('ü"b\\x€😀\t'), '"\\u00FC\\"b\\\\x\\u20AC\\uD83D\\uDE00\\t"');
  assert.equal(formatQemuJson('\u001f\u007f'), '"\\u001F\\u007F"');
  assert.equal(formatQemuJson('\\u00e9'), '"\\\\u00e9"');
});
