/** The protocols whose peers are not trusted, by name. */
import type { Protocol } from './conversation.js';
import { nbdClient } from './nbd-client.js';
import { nbdServer } from './nbd-server.js';
import { vhostUser } from './vhost-user.js';
import { virtqueue } from './virtqueue.js';

/** See the file's comment. */
export const protocols: Readonly<Record<string, Protocol>> = {
  'nbd-server': nbdServer,
  'nbd-client': nbdClient,
  'vhost-user': vhostUser,
  virtqueue,
};
