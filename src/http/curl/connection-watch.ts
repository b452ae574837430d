/**
 * Watches the connections that libcurl keeps. Debian 12's libcurl sends a request over a kept connection on
 * which something lies already, and takes that for the response: bytes that a server or a proxy sent behind
 * an earlier response would become another block. So before a request starts, its connection is looked at;
 * one with something to read, or at its end, is emptied and shut down, and libcurl then finds it dead.
 *
 * That needs to know which connection a request will take. So each easy handle has connections of its own
 * (easy-options.ts), and libcurl tells the descriptor when a transfer has ended.
 */
import type { CLibrary } from "./library.js";

/** Bytes of a body that the kernel takes before it has sent them; small, so that what libcurl counts is sent. */
const MAX_UNSENT_BYTES = 16 * 1024;
/** Source: tcp(7), netinet/tcp.h. */
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;

export class ConnectionWatch {
  readonly #c: CLibrary;
  /** Descriptor → the easy handle that it belongs to, while it rests. */
  readonly #owners = new Map<number, object>();
  readonly #resting = new Map<object, number>();

  constructor(c: CLibrary) {
    this.#c = c;
  }

  /** A socket was made. */
  opened(descriptor: number): void {
    this.#c.setSocketNumber(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES);
    this.#c.closeOnExec(descriptor);
  }

  /** The descriptor is closed, and may be another connection's next. */
  closed(descriptor: number): void {
    const owner = this.#owners.get(descriptor);
    this.#owners.delete(descriptor);
    if (owner !== undefined) this.#resting.delete(owner);
  }

  /** A transfer of this handle has ended, and libcurl keeps its connection. */
  rests(owner: object, descriptor: number): void {
    this.#owners.set(descriptor, owner);
    this.#resting.set(owner, descriptor);
  }

  /** To be called before a handle begins a request: shuts its connection down if something came on it. */
  check(owner: object): void {
    const descriptor = this.#resting.get(owner);
    if (descriptor === undefined) return;
    this.#resting.delete(owner);
    this.#owners.delete(descriptor);
    if (this.#c.isReadable(descriptor)) this.#c.shutDown(descriptor);
  }

  /** A response on it cannot be trusted: nothing may follow. */
  discard(descriptor: number): void {
    this.#c.shutDown(descriptor);
  }
}
