/** Replies on their way to a socket: those that are ready in one turn go in one system call. */
import type { Writable } from 'node:stream';

interface Reply {
  readonly bytes: Uint8Array;
  readonly onSent: (() => void) | undefined;
}

/** See the file's comment. */
export class ReplyWriter {
  #socket: Writable;
  #ready: Reply[] = [];
  #isSending = false;
  #isDue = false;
  #onIdle: (() => void) | undefined;

  constructor(socket: Writable) {
    this.#socket = socket;
  }

  /** What is sent from now on goes through another stream. To be called when it is idle. */
  continueOn(socket: Writable): void {
    this.#socket = socket;
  }

  /** @param onSent called when the bytes have gone, or never will */
  send(bytes: Uint8Array, onSent?: () => void): void {
    this.#ready.push({ bytes, onSent });
    if (this.#isDue || this.#isSending) return;
    this.#isDue = true;
    // After everything that has ended in this turn.
    process.nextTick(() => {
      this.#isDue = false;
      this.#sendReady();
    });
  }

  /** Resolves when all replies have gone, or never will. */
  async idle(): Promise<void> {
    if (!this.#isSending && this.#ready.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #sendReady(): void {
    const replies = this.#ready;
    if (replies.length === 0) {
      this.#onIdle?.();
      return;
    }
    this.#ready = [];
    this.#isSending = true;
    const sent = (): void => {
      for (const { onSent } of replies) onSent?.();
      this.#isSending = false;
      this.#sendReady();
    };
    if (this.#socket.destroyed) {
      process.nextTick(sent);
      return;
    }
    this.#socket.cork();
    const last = replies.length - 1;
    replies.forEach(({ bytes }, index) => {
      // Of a failure the socket tells by itself.
      if (index === last) this.#socket.write(bytes, sent);
      else this.#socket.write(bytes);
    });
    this.#socket.uncork();
  }
}
