/** Power cuts while images of a mapping are written to; `npm run crash` examines every moment of many more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { needsTool } from '../../support/tools.js';
import { examineMapped } from './examination.js';
import { recordMapped, withImage } from './recording.js';
import { mappedWorkloads } from './workloads.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

for (const workload of mappedWorkloads) {
  test(`a power cut while an image is written to, ${workload.name}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    await withImage(workload, async (filename) => {
      const recording = await recordMapped(workload, seed, filename);
      const outcome = await examineMapped(recording, {
        engineEvery: 60,
        realEvery: 400,
        momentEvery: 9,
      });
      const { failures, ios, enumerated, distinct, byEngine, byRealTool } = outcome;
      t.diagnostic(
        `seed ${seed}: ${ios} I/Os, ${enumerated} states made, ${distinct} distinct, ` +
          `${byEngine} opened by the library, ${byRealTool} by qemu-img`,
      );
      assert.deepEqual(failures, []);
      assert.ok(distinct >= 100, `${distinct} states`);
    });
  });
}
