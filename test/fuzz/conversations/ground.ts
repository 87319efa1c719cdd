/** Conversations of hostile peers as the fuzzer tries them, and those that are kept. */
import path from 'node:path';
import { projectFolder } from '../../support/tools.js';
import type { Ground } from '../ground.js';
import { JudgeThread } from '../judge-thread.js';
import type { Conversation } from './conversation.js';
import { protocols } from './protocols.js';

/** The file of the conversations that are kept, each with what comes of it. */
export const conversationsPath = path.join(projectFolder, 'test', 'fuzz', 'conversations.json');

/** Verdicts on peers with whom nothing is wrong. */
const harmless: readonly string[] = ['nothing is told', 'it serves'];

/** @param protocol a name of `protocols` */
export function conversationGround(protocol: string): Ground<Conversation, string> {
  return {
    name: protocol,
    corpusPath: conversationsPath,
    batchSize: 10,
    thread: new JudgeThread(new URL('worker.js', import.meta.url), protocol),
    draw: (random) => ({ protocol, said: protocols[protocol].draw(random) }),
    partsOf: ({ said }) => said.steps.length,
    without: ({ said }, part) => ({
      protocol,
      said: { ...said, steps: said.steps.filter((_, index) => index !== part) },
    }),
    // What a server says in its own words makes no difference.
    likenessOf: (each) => `${each.protocol} ${each.verdict.replaceAll(/\d+/g, 'N').slice(0, 95)}`,
    outcomeOf: (verdict) => (harmless.includes(verdict) ? 'went well' : 'told of, or gone'),
  };
}
