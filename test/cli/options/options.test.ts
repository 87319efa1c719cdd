/** Command lines are understood as GNU getopt_long does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CliError } from '../../../src/cli/process/cli-error.js';
import type { OptionSpecs } from '../../../src/cli/options/options.js';
import { parseCommandLine } from '../../../src/cli/options/options.js';

const specs = {
  help: { short: 'h', long: 'help', help: '' },
  quiet: { short: 'q', long: 'quiet', help: '' },
  format: { short: 'f', long: 'format', aliases: ['fmt'], argument: 'FORMAT', help: '' },
  force: { long: 'force-share', help: '' },
  options: { short: 'o', argument: 'LIST', help: '' },
  progress: { short: 'p', long: 'progress', argument: 'TARGET', optional: true, help: '' },
} as const satisfies OptionSpecs<string>;

const parse = (...words: string[]) => parseCommandLine('create', specs, words);

test('options and operands may be mixed, and -- ends the options', () => {
  const line = parse('a', '-q', 'b', '--', '-q', '--format');
  assert.deepEqual(line.operands, ['a', 'b', '-q', '--format']);
  assert.ok(line.has('quiet'));
  assert.deepEqual(parse('-').operands, ['-']);
});

test('short options combine and take arguments attached or apart', () => {
  assert.equal(parse('-fraw').last('format'), 'raw');
  assert.equal(parse('-qf', 'raw').last('format'), 'raw');
  assert.equal(parse('-f', '-q').last('format'), '-q');
  assert.deepEqual(parse('-oa', '-o', 'b').all('options'), ['a', 'b']);
});

test('long options take arguments with = or apart, and may be shortened', () => {
  assert.equal(parse('--format=raw').last('format'), 'raw');
  assert.equal(parse('--form', 'raw').last('format'), 'raw');
  assert.equal(parse('--fm=raw').last('format'), 'raw');
  assert.ok(parse('--q').has('quiet'));
  assert.equal(parse('--format=').last('format'), '');
});

test('an optional argument is given with = only', () => {
  assert.equal(parse('--progress=fd:3').last('progress'), 'fd:3');
  const apart = parse('--progress', 'fd:3');
  assert.equal(apart.last('progress'), undefined);
  assert.deepEqual(apart.operands, ['fd:3']);
  assert.ok(parse('-p').has('progress'));
});

test('help ends the parsing, whatever follows', () => {
  assert.ok(parse('-h', '--nonsense').has('help'));
});

test('mistakes are worded as the C library does', () => {
  const cases: readonly (readonly [readonly string[], string])[] = [
    [['-Z'], "invalid option -- 'Z'"],
    [['-qZ'], "invalid option -- 'Z'"],
    [['-f'], "option requires an argument -- 'f'"],
    [['--bogus'], "unrecognized option '--bogus'"],
    [['--format'], "option '--format' requires an argument"],
    [['--quiet=5'], "option '--quiet' doesn't allow an argument"],
    [['--fo'], "option '--fo' is ambiguous; possibilities: '--format' '--force-share'"],
  ];
  for (const [words, message] of cases) {
    assert.throws(
      () => parse(...words),
      (error: CliError) =>
        error.report('cowherd') ===
        `cowherd create: ${message}\nTry 'cowherd create --help' for more info\n`,
      message,
    );
  }
});
