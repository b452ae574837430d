/**
 * Watches the connections that libcurl keeps, by their descriptors. Each easy handle has connections of its own
 * (easy-options.ts), and libcurl tells for which handle it makes a socket.
 *
 * - Debian 12's libcurl sends a request over a kept connection on which something lies already, and takes that
 *   for the response: bytes that a server or a proxy sent behind an earlier response would become another
 *   block. So before a request starts, its connection is looked at; one with something to read, or at its end,
 *   is emptied and shut down, and libcurl then finds it dead.
 * - What libcurl counts as sent, its kernel has taken; over TLS it counts a whole buffer at once. So progress is
 *   what the peer has acknowledged (tcp-progress.ts).
 */
import { type TcpProgress, tcpProgress } from "../tcp-progress.js";
import type { CLibrary } from "./library.js";

const NOTHING: TcpProgress = { sent: 0, received: 0 };

export class ConnectionWatch {
  readonly #c: CLibrary;
  /** Descriptor → number of the handle that it was made for. */
  readonly #owners = new Map<number, number>();
  /** Handle → its connection that rests. */
  readonly #resting = new Map<number, number>();

  constructor(c: CLibrary) {
    this.#c = c;
  }

  /** A socket was made for a handle. */
  opened(descriptor: number, handle: number): void {
    this.#c.closeOnExec(descriptor);
    this.#owners.set(descriptor, handle);
  }

  /** The descriptor is closed, and may be another connection's next. */
  closed(descriptor: number): void {
    const handle = this.#owners.get(descriptor);
    this.#owners.delete(descriptor);
    if (handle !== undefined && this.#resting.get(handle) === descriptor) {
      this.#resting.delete(handle);
    }
  }

  /** A transfer of this handle has ended, and libcurl keeps its connection. */
  rests(handle: number, descriptor: number): void {
    this.#resting.set(handle, descriptor);
  }

  /** To be called before a handle begins a request: shuts its connection down if something came on it. */
  check(handle: number): void {
    const descriptor = this.#resting.get(handle);
    if (descriptor === undefined) return;
    this.#resting.delete(handle);
    if (this.#c.isReadable(descriptor)) this.#c.shutDown(descriptor);
  }

  /** A response on it cannot be trusted: nothing may follow. */
  discard(descriptor: number): void {
    this.#c.shutDown(descriptor);
  }

  /** Bytes that a handle's open connections have moved since they were made, those of TLS included. */
  progressOf(handle: number): TcpProgress {
    let { sent, received } = NOTHING;
    for (const [descriptor, owner] of this.#owners) {
      if (owner !== handle) continue;
      const moved = tcpProgress(descriptor) ?? NOTHING;
      sent += moved.sent;
      received += moved.received;
    }
    return { sent, received };
  }
}
