/** Hostile peers: what those of the corpus say has the outcome it must have, and what is drawn at random harms nobody. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../stress/random.js';
import { readCorpus } from '../corpus.js';
import type { Conversation } from './conversation.js';
import { conversationsPath } from './ground.js';
import { protocols } from './protocols.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 150);

for (const [name, protocol] of Object.entries(protocols)) {
  test(`conversations of the corpus, ${name}`, { timeout: 300_000 }, async (t) => {
    const corpus = await readCorpus<Conversation & { readonly verdict: string }>(conversationsPath);
    const own = corpus.filter((each) => each.protocol === name);
    assert.ok(own.length >= 5, `${own.length} conversations`);
    const listener = await protocol.listen();
    for (const { said, verdict } of own) {
      assert.equal(await listener.judge(said), verdict, JSON.stringify(said));
    }
    await listener.close();
    t.diagnostic(`${own.length} conversations`);
  });

  test(`conversations at random, ${name}`, { timeout: 300_000 }, async (t) => {
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const random = new Random(seed);
    const listener = await protocol.listen();
    for (let count = 0; count < runs; count++) {
      const said = protocol.draw(random);
      await assert.doesNotReject(listener.judge(said), JSON.stringify(said));
    }
    await listener.close();
  });
}
