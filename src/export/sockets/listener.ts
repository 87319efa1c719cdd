/** Accepting clients at an address, and handing their sockets on as descriptors. */
import { stat, unlink } from 'node:fs/promises';
import { type Server, type Socket, connect, createServer } from 'node:net';
import path from 'node:path';
import { CowherdError } from '../../errors.js';
import { duplicateDescriptor } from '../../native/descriptor.js';
import { describeErrno } from '../../system-errors.js';
import { type Address, addressText } from './address.js';

/** Clients that the kernel keeps waiting. */
const backlog = 128;

/** See the file's comment. */
export class Listener {
  /** As clients can connect to it: with the port that was free, if any was wanted. */
  readonly address: string;
  readonly #server: Server;

  private constructor(server: Server, address: string) {
    this.#server = server;
    this.address = address;
  }

  /**
   * Listens.
   *
   * @param onClient given a connected socket, which is its to close
   * @throws CowherdError naming the address
   */
  static async open(address: Address, onClient: (descriptor: number) => void): Promise<Listener> {
    if ('path' in address) await removeLeftOver(address.path);
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      const descriptor = takeDescriptor(socket);
      if (descriptor !== undefined) onClient(descriptor);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        void reasonOf(address, error).then((code) => {
          reject(cannotListen(address, code, error));
        });
      });
      server.once('listening', resolve);
      if ('descriptor' in address) server.listen({ fd: address.descriptor }, backlog);
      else if ('path' in address) server.listen({ path: address.path, backlog });
      else {
        const host = address.host === '' ? undefined : address.host;
        server.listen({ port: address.port, backlog, ...(host !== undefined && { host }) });
      }
    });
    server.on('error', () => undefined);
    const bound = server.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : undefined;
    const isNamed = 'host' in address && port !== undefined;
    return new Listener(server, addressText(isNamed ? { host: address.host, port } : address));
  }

  /** Takes no more clients. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }
}

/** Takes a socket out of Node's hands, so that any thread can have it. */
function takeDescriptor(socket: Socket): number | undefined {
  const { _handle: handle } = socket as { _handle?: { readonly fd?: number } | null };
  const descriptor = duplicateDescriptor(handle?.fd ?? -1);
  socket.on('error', () => undefined);
  socket.destroy();
  return descriptor < 0 ? undefined : descriptor;
}

/** Removes the socket of a server that was killed; anything else at that path stays. */
async function removeLeftOver(name: string): Promise<void> {
  const found = await stat(name).catch(() => undefined);
  if (found?.isSocket() !== true) return;
  const isServed = await new Promise<boolean>((resolve) => {
    const socket = connect(name, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', ({ code }: NodeJS.ErrnoException) => {
      resolve(code !== 'ECONNREFUSED');
    });
  });
  if (!isServed) await unlink(name).catch(() => undefined);
}

/** Why nobody can listen there: libuv says that access is denied where a folder is missing. */
async function reasonOf(address: Address, { code = '' }: NodeJS.ErrnoException): Promise<string> {
  if (code !== 'EACCES' || !('path' in address)) return code;
  return await stat(path.dirname(address.path)).then(
    () => code,
    (error: unknown) => (error as NodeJS.ErrnoException).code ?? code,
  );
}

function cannotListen(address: Address, code: string, cause: Error): CowherdError {
  const reason = describeErrno(code);
  return new CowherdError(
    code === 'EACCES' || code === 'EPERM' ? 'ERR_COWHERD_ACCESS' : 'ERR_COWHERD_IO',
    `Could not listen at '${addressText(address)}': ${reason}`,
    { reason, cause },
  );
}
