/**
 * An image in a stream of bytes: a pipe, a socket. Its size is what the user says, and the stream has
 * to end exactly there: one that breaks off is not taken for a small image, nor the beginning of a long
 * one for the whole. Nothing tells holes from zeros, so every block is looked at.
 *
 * The bytes come in order and only once, as many at a time as there are. Several blocks may be asked
 * for at a time: each waits for its turn, then is filled. What no block has room for stays with the
 * writer of the stream, who waits, so memory does not grow however slowly blocks are put.
 */
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import { type BlockChoice, ImageSource } from "./image-source.js";

/** A stream of bytes, read by one reader at a time. */
export interface ByteReader {
  /**
   * Waits for bytes, and puts some at the beginning of `target`.
   * @param target is not touched after this settles.
   * @returns how many, 1 at least; 0 at the end of the stream.
   * @throws what broke the stream; the signal's reason, and then the stream is at its end.
   */
  read(target: Uint8Array, signal?: AbortSignal): Promise<number>;
  close(): void;
}

export class StreamSource extends ImageSource {
  readonly #reader: ByteReader;
  /** Bytes of the image that were read. */
  #position = 0;
  /** The block whose turn it is. */
  #next = 0;
  /** Reads that wait for their turn, by block. */
  readonly #waiting = new Map<number, () => void>();

  /**
   * @param name what sentences call it. @param size of the image, bytes.
   * @param reader closed with this.
   * @throws Failure EINVAL, EFBIG for a size that no image has.
   */
  constructor(name: string, size: number, reader: ByteReader) {
    super(name, size);
    this.#reader = reader;
  }

  get tellsHoles(): boolean {
    return false;
  }

  protected ranges(_choice: BlockChoice): Iterable<[number, number]> {
    return [[0, this.size]];
  }

  /** @throws Failure EIO where the stream ends or breaks; the signal's reason. */
  async read(blockIndex: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (blockIndex !== this.#next) {
      await new Promise<void>((resolve) => this.#waiting.set(blockIndex, resolve));
    }
    try {
      const wanted = Math.min(BLOCK_SIZE, this.size - this.#position);
      await this.#fill(target.subarray(0, wanted), signal);
      target.fill(0, wanted);
    } finally {
      // After a failure too: the reads that wait then fail by themselves.
      this.#next = blockIndex + 1;
      this.#waiting.get(this.#next)?.();
      this.#waiting.delete(this.#next);
    }
  }

  /** Waits for the stream's end. @throws Failure EFBIG where it goes on; as read. */
  async assertWhole(signal?: AbortSignal): Promise<void> {
    if ((await this.#some(new Uint8Array(1), signal)) > 0) {
      throw new Failure(
        "EFBIG",
        `${this.name} goes on after the ${this.size} bytes that --size says, so the snapshot was not completed; give the size of the whole image.`,
      );
    }
  }

  async close(): Promise<void> {
    this.#reader.close();
  }

  async #fill(target: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    let done = 0;
    while (done < target.length) {
      const count = await this.#some(target.subarray(done), signal);
      if (count === 0) {
        throw new Failure(
          "EIO",
          `${this.name} ended after ${this.#position} of the ${this.size} bytes that --size says, so the snapshot was not completed; find out why it ended, or give its real size.`,
        );
      }
      done += count;
      this.#position += count;
    }
  }

  async #some(target: Uint8Array, signal: AbortSignal | undefined): Promise<number> {
    signal?.throwIfAborted();
    try {
      return await this.#reader.read(target, signal);
    } catch (cause) {
      signal?.throwIfAborted();
      const reason = (cause as Error).message;
      const message = `${this.name} cannot be read after byte ${this.#position} (${reason}).`;
      throw new Failure("EIO", message, { cause });
    }
  }
}
