/** Lists of options are read as QEMU reads them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  asksForHelp,
  escapeListValue,
  joinOptionLists,
  parseOptionList,
} from '../../../src/cli/options/option-list.js';

test('items have values, or are switches', () => {
  assert.deepEqual(parseOptionList('size=4k,lazy,nolazy'), [
    { name: 'size', value: '4k' },
    { name: 'lazy', value: 'on' },
    { name: 'lazy', value: 'off' },
  ]);
  assert.deepEqual(parseOptionList('a=b=c'), [{ name: 'a', value: 'b=c' }]);
});

test('a doubled comma is one in a value', () => {
  assert.deepEqual(parseOptionList('file=a,,b,x=1'), [
    { name: 'file', value: 'a,b' },
    { name: 'x', value: '1' },
  ]);
  assert.equal(escapeListValue('a,b'), 'a,,b');
});

test('lists are joined unless a comma at an end would change their meaning', () => {
  assert.equal(joinOptionLists(['a=1', 'b=2']), 'a=1,b=2');
  assert.equal(joinOptionLists(['a=x,,']), 'a=x,,');
  for (const list of ['', ',a=1', 'a=1,', 'a=1,,,']) {
    assert.throws(() => joinOptionLists([list]), { message: `Invalid option list: ${list}` });
  }
});

test('help is asked for by an item of its own', () => {
  assert.ok(asksForHelp('help'));
  assert.ok(asksForHelp('a=1,?'));
  assert.ok(!asksForHelp('a=help'));
});
