/**
 * Writes replies to /dev/fuse. A reply is one write(2) or writev(2), which the kernel takes whole
 * and at once, so one header and one body buffer serve all replies of a thread. Data is written from
 * where it lies. A reply that the kernel no longer wants (ENOENT: the request was abandoned; ENODEV:
 * unmounted) is dropped in silence.
 */
import { writeSync, writevSync } from "node:fs";
import { ERRNO, type ErrnoName } from "../../common/failure.js";
import { OUT_HEADER_BYTES, setNumber64 } from "./protocol.js";
import type { VectorWrite } from "./vector-write.js";

/** Directory listings are the largest bodies; the kernel asks again for what did not fit. */
const BODY_BYTES = 64 * 1024;

export class ReplyWriter {
  readonly #log: (message: string) => void;
  #fd: number | undefined;
  readonly #memory = Buffer.alloc(OUT_HEADER_BYTES + BODY_BYTES);
  readonly #header = new Uint32Array(this.#memory.buffer, this.#memory.byteOffset, 4);
  readonly #headerBytes = this.#memory.subarray(0, OUT_HEADER_BYTES);
  readonly #pair: Uint8Array[] = [this.#headerBytes, this.#headerBytes];
  /** Where a reply's body is encoded before `body`. */
  readonly words = new Uint32Array(
    this.#memory.buffer,
    this.#memory.byteOffset + OUT_HEADER_BYTES,
    BODY_BYTES / 4,
  );
  readonly bytes = this.#memory.subarray(OUT_HEADER_BYTES);

  readonly #vectorWrite: VectorWrite | undefined;

  /**
   * @param log takes a sentence about a reply that the kernel refused.
   * @param vectorWrite a faster writev(2), where there is one.
   */
  constructor(fd: number, log: (message: string) => void, vectorWrite?: VectorWrite) {
    this.#fd = fd;
    this.#log = log;
    this.#vectorWrite = vectorWrite;
  }

  /** Nothing is written after this: the descriptor's number may soon be another file's. */
  close(): void {
    this.#fd = undefined;
  }

  error(unique: number, errno: ErrnoName): void {
    this.#send(unique, -ERRNO[errno], OUT_HEADER_BYTES);
  }

  ok(unique: number): void {
    this.#send(unique, 0, OUT_HEADER_BYTES);
  }

  /** The first `length` bytes of `words` and `bytes`. */
  body(unique: number, length: number): void {
    this.#send(unique, 0, OUT_HEADER_BYTES + length);
  }

  /** The parts, joined; none of them is used after the call. */
  data(unique: number, parts: readonly Uint8Array[]): void {
    if (this.#fd === undefined) return;
    let length = OUT_HEADER_BYTES;
    for (let i = 0; i < parts.length; i += 1) length += parts[i]!.byteLength;
    this.#header[0] = length;
    this.#header[1] = 0;
    setNumber64(this.#header, 2, unique);
    // Where that fails, Node's own call says why.
    if (this.#vectorWrite?.(this.#fd, this.#headerBytes, parts, length)) return;
    let vector = this.#pair;
    if (parts.length === 1) vector[1] = parts[0]!;
    else vector = [this.#headerBytes, ...parts];
    try {
      writevSync(this.#fd, vector);
    } catch (error) {
      this.#failed(unique, error);
    } finally {
      this.#pair[1] = this.#headerBytes;
    }
  }

  #send(unique: number, error: number, length: number): void {
    if (this.#fd === undefined) return;
    this.#header[0] = length;
    this.#header[1] = error;
    setNumber64(this.#header, 2, unique);
    try {
      writeSync(this.#fd, this.#memory, 0, length);
    } catch (cause) {
      this.#failed(unique, cause);
    }
  }

  #failed(unique: number, error: unknown): void {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENODEV" || code === "EPERM") return;
    this.#log(`The kernel refused a reply (${code ?? message}).`);
    // Whoever waits for it must not wait for ever.
    this.#header[0] = OUT_HEADER_BYTES;
    this.#header[1] = -ERRNO.EIO;
    setNumber64(this.#header, 2, unique);
    try {
      writeSync(this.#fd!, this.#memory, 0, OUT_HEADER_BYTES);
    } catch {
      // Refused as well: the request is gone.
    }
  }
}
