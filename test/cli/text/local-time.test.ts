/** Local time under zones of every kind, as the C library has it: date(1) is the referee. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { localTime } from '../../../src/cli/text/local-time.js';
import { needsTool, runOk } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

const zones = [
  'JST-9',
  'XYZ-5:30',
  '<+0330>-3:30',
  '<+03>-3',
  'GMT+5',
  'ABC12:34:56',
  'CET-1CEST,M3.5.0,M10.5.0/3',
  'NZST-12NZDT,M9.5.0,M4.1.0/3',
  'AAA5BBB4:30,J60/0,J300/23:30',
  'AAA5BBB,59,299/-1',
  '<-02>2<-01>,M3.5.0/-1,M10.5.0/0',
];

test('rules of POSIX say what time it is, as date(1) has it', async (t) => {
  if (!needsTool(t, 'date')) return;
  for (const zone of zones) {
    const moments = fc.sample(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { numRuns: 60, seed });
    // Near the changes of a common and of a leap year, hour by hour.
    for (const day of ['2023-03-01', '2023-03-12', '2023-03-26', '2024-02-29', '2024-10-27']) {
      for (let hour = -12; hour < 36; hour += 3) moments.push(Date.parse(day) / 1000 + hour * 3600);
    }
    const { env } = process;
    const input = moments.map((moment) => `@${moment}\n`).join('');
    const shown = await runOk('sh', ['-c', `printf '%s' "$MOMENTS" | date -f - '+%F %T'`], {
      env: { ...env, TZ: zone, MOMENTS: input },
    });
    const ours = moments.map((moment) => text(moment, zone));
    assert.deepEqual(ours, shown.trimEnd().split('\n'), `${zone}, seed ${seed}`);
  }
});

function text(seconds: number, zone: string): string {
  const { year, month, day, hour, minute, second } = localTime(seconds, zone);
  const two = (values: readonly number[]): string[] =>
    values.map((value) => String(value).padStart(2, '0'));
  return `${two([year, month, day]).join('-')} ${two([hour, minute, second]).join(':')}`;
}

test('zones of the database are left to Node', () => {
  const { TZ } = process.env;
  process.env['TZ'] = 'Europe/Berlin';
  try {
    const { year, month, day, hour } = localTime(Date.UTC(2024, 6, 1, 22) / 1000);
    assert.deepEqual([year, month, day, hour], [2024, 7, 2, 0]);
  } finally {
    if (TZ === undefined) delete process.env['TZ'];
    else process.env['TZ'] = TZ;
  }
});
