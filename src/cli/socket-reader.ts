/**
 * Reads a pipe or a socket through the event loop into one piece of memory that is used again and
 * again (net.Socket's `onread`): a new buffer for each 64 KiB, as a Readable makes, costs more time to
 * collect than the bytes cost to read. Reading is paused while there is something in that memory.
 */
import { createConnection, type OnReadOpts, Socket, type SocketConstructorOpts } from "node:net";
import { KIB } from "../common/sizes.js";
import type { ByteReader } from "../snapshot/stream-source.js";

/** What a pipe holds unless its owner made it larger (pipe(7)), and what libuv reads at a time. */
const PIECE_BYTES = 64 * KIB;

export class SocketReader implements ByteReader {
  readonly #socket: Socket;
  readonly #memory = new Uint8Array(PIECE_BYTES);
  /** What came and was not read yet: #memory from `#start` to `#end`. */
  #start = 0;
  #end = 0;
  #ended = false;
  #failure: Error | undefined;
  #wake = () => {};

  /** @param fd of a pipe or a socket; closed with this. */
  static of(fd: number): SocketReader {
    return new SocketReader((onread) => {
      // Node's types lack the constructor's `onread`.
      const options: SocketConstructorOpts & { readonly onread: OnReadOpts } = {
        fd,
        readable: true,
        writable: false,
        onread,
      };
      return new Socket(options);
    });
  }

  /** @param path of a Unix socket that someone listens at. */
  static connectTo(path: string): SocketReader {
    return new SocketReader((onread) => createConnection({ path, onread }));
  }

  private constructor(open: (onread: OnReadOpts) => Socket) {
    const callback = (count: number) => {
      this.#start = 0;
      this.#end = count;
      this.#wake();
      return false;
    };
    this.#socket = open({ buffer: this.#memory, callback });
    this.#socket.on("error", (error) => {
      this.#failure = error;
    });
    // After the end as well, after an error, and after destroy().
    this.#socket.on("close", () => {
      this.#ended = true;
      this.#wake();
    });
  }

  async read(target: Uint8Array, signal?: AbortSignal): Promise<number> {
    if (this.#start === this.#end && !this.#ended) await this.#more(signal);
    signal?.throwIfAborted();
    const part = this.#memory.subarray(
      this.#start,
      Math.min(this.#end, this.#start + target.length),
    );
    if (part.length === 0 && this.#failure !== undefined) throw this.#failure;
    target.set(part);
    this.#start += part.length;
    return part.length;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Waits for a piece or the end. A stream can be silent for ever: only destroying it ends the wait. */
  async #more(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const stop = () => this.close();
    signal?.addEventListener("abort", stop, { once: true });
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#socket.resume();
    });
    signal?.removeEventListener("abort", stop);
  }
}
