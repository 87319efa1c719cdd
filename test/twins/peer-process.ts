/** A process that runs the real tools for another, whose memory takes long to fork. */
import { run } from '../support/tools.js';
import type { PeerOrder } from './peer.js';

process.on('message', ({ id, command, words, folder }: PeerOrder) => {
  void run(command, words, { cwd: folder }).then((result) => process.send?.({ id, result }));
});
process.on('disconnect', () => process.exit());
