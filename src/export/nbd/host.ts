/** The connections that one thread serves. */
import { Connection, type NbdExport } from './connection.js';
import type { ServerTls } from './tls.js';
import { PayloadPool } from './payload-pool.js';

/** See the file's comment. */
export class NbdHost {
  readonly #exports: readonly NbdExport[];
  readonly #tls: ServerTls | undefined;
  readonly #onProblem: (why: string) => void;
  readonly #payloads = new PayloadPool();
  readonly #connections = new Set<Connection>();

  /** @param onProblem told, in a few words, why a connection was closed that its client had not ended */
  constructor(
    exports: readonly NbdExport[],
    tls: ServerTls | undefined,
    onProblem: (why: string) => void,
  ) {
    this.#exports = exports;
    this.#tls = tls;
    this.#onProblem = onProblem;
  }

  /**
   * Serves a client until it has gone.
   *
   * @param descriptor of a connected socket, which is closed then
   */
  async serve(descriptor: number): Promise<void> {
    const connection = new Connection(descriptor, {
      exports: this.#exports,
      payloads: this.#payloads,
      tls: this.#tls,
      onProblem: this.#onProblem,
    });
    this.#connections.add(connection);
    await connection.closed;
    this.#connections.delete(connection);
  }

  /** Answers what is under way on all connections, and closes them. */
  async close(): Promise<void> {
    const connections = [...this.#connections];
    for (const connection of connections) connection.end(undefined);
    await Promise.all(connections.map((connection) => connection.closed));
  }
}
