/**
 * Opens, reads and checks malformed images, made from every fixture by a mutator that knows the
 * fields of the format, and has servers and clients meet peers that say anything:
 *
 *     npm run fuzz -- [--minutes N] [--seed S] [--grow] [--what NAME,NAME] [--only TEXT]
 *
 * Each image must end with an error or with data, and each peer with at most one line about it while the next
 * is served: never with a crash, a hang or a read without bound. NAME is `images`, or a protocol: `nbd-server`,
 * `nbd-client`, `vhost-user`, `virtqueue`; all of them by default, N minutes each. With `--only` images are
 * made of fixtures whose name contains the text. With `--grow` cases whose like the corpus does not have yet
 * are minimised and added to it.
 */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { conversationGround } from '../test/fuzz/conversations/ground.js';
import { protocols } from '../test/fuzz/conversations/protocols.js';
import type { Ground } from '../test/fuzz/ground.js';
import { Grower } from '../test/fuzz/grower.js';
import { imageGround } from '../test/fuzz/image-ground.js';
import { Random } from '../test/stress/random.js';
import { readArguments } from './arguments.js';

const everything = ['images', ...Object.keys(protocols)];
const values = readArguments('Opens malformed images, and meets hostile peers.', {
  minutes: { type: 'string', default: '1' },
  seed: { type: 'string' },
  grow: { type: 'boolean', default: false },
  what: { type: 'string', default: everything.join() },
  only: { type: 'string', default: '' },
});
/** Failures after which there is no use in going on. */
const mostFailures = 10;
const seed = Number(values.seed ?? Date.now() % 1_000_000_007);

for (const name of values.what.split(',')) {
  if (!everything.includes(name)) {
    console.error(`There is nothing named '${name}' to fuzz: ${everything.join(', ')}`);
    process.exit(1);
  }
  if (name === 'images') await fuzz(await imageGround(values.only));
  else await fuzz(conversationGround(name));
}

async function fuzz<Case, Verdict>(ground: Ground<Case, Verdict>): Promise<void> {
  const random = new Random(seed);
  const grower = values.grow ? await Grower.open(ground) : undefined;
  const outcomes = new Map<string, number>();
  const failures: string[] = [];
  let executions = 0;
  const end = Date.now() + Number(values.minutes) * 60_000;
  while (Date.now() < end && failures.length < mostFailures) {
    const cases = Array.from({ length: ground.batchSize }, () => ground.draw(random));
    const judgements = await ground.thread.judgeAll(cases);
    for (const [index, { verdict, failure }] of judgements.entries()) {
      executions++;
      if (failure !== undefined) failures.push(`${JSON.stringify(cases[index])}\n${failure}`);
      if (verdict === undefined) continue;
      const outcome = ground.outcomeOf(verdict);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      await grower?.grow(cases[index], verdict);
    }
  }
  const last = await ground.thread.end();
  if (last !== undefined) failures.push(last);
  if (grower !== undefined) console.log(`the corpus has ${await grower.write()} cases`);
  const counts = [...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
  console.log(`${ground.name}, seed ${seed}: ${executions} cases, ${counts}`);
  console.log(`failures: ${failures.length === 0 ? 'none' : failures.length}`);
  if (failures.length === 0) return;
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fuzz-'));
  await writeFile(path.join(folder, 'failures.txt'), failures.join('\n\n'));
  console.error(`they are described in ${path.join(folder, 'failures.txt')}`);
  process.exitCode = 1;
}
